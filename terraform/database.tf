resource "aws_db_subnet_group" "this" {
  name       = local.name
  subnet_ids = aws_subnet.private[*].id
}

resource "aws_db_parameter_group" "this" {
  name   = "${local.name}-postgres16"
  family = "postgres16"

  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }

  parameter {
    name  = "log_min_duration_statement"
    value = "1000"
  }
}

# databases `mlflow` (made here) and `taxi` (predictions and metrics; both name a table `metrics`): docs/aws.md
resource "aws_db_instance" "this" {
  #checkov:skip=CKV_AWS_118:enhanced monitoring costs log volume; CPU and space have alarms
  #checkov:skip=CKV_AWS_161:libpq would need a token every 15 minutes; the password is AWS's, and changes every week
  #checkov:skip=CKV_AWS_353:slow statements stand in the log (log_min_duration_statement); nobody would look at samples besides
  identifier                  = local.name
  engine                      = "postgres"
  engine_version              = "16"
  instance_class              = "db.t4g.micro"
  allocated_storage           = 20
  max_allocated_storage       = 100
  storage_type                = "gp3"
  storage_encrypted           = true
  kms_key_id                  = aws_kms_key.this.arn
  db_name                     = "mlflow"
  username                    = "taxi"
  manage_master_user_password = true
  port                        = local.ports.postgres
  multi_az                    = local.profile.multi_az
  db_subnet_group_name        = aws_db_subnet_group.this.name
  vpc_security_group_ids      = [aws_security_group.this["database"].id]
  parameter_group_name        = aws_db_parameter_group.this.name
  ca_cert_identifier          = "rds-ca-rsa2048-g1"
  publicly_accessible         = false
  backup_retention_period     = local.profile.backup_days
  backup_window               = "08:00-08:30"
  maintenance_window          = "sun:10:00-sun:10:30"
  copy_tags_to_snapshot       = true
  auto_minor_version_upgrade  = true
  deletion_protection         = var.deletion_protection
  skip_final_snapshot         = false
  final_snapshot_identifier   = "${local.name}-final"

  enabled_cloudwatch_logs_exports = ["postgresql"]
}

locals {
  # libpq takes the password from PGPASSWORD, which changes; so no address holds it
  server              = "postgresql+psycopg2://${aws_db_instance.this.username}@${aws_db_instance.this.address}:${local.ports.postgres}"
  registry_address    = "${local.server}/mlflow?sslmode=require"
  database_address    = "${local.server}/taxi?sslmode=require"
  database_secret_arn = aws_db_instance.this.master_user_secret[0].secret_arn
}

# Sundays; the tasks are started anew an hour later (jobs.tf), with the new password
resource "aws_secretsmanager_secret_rotation" "database" {
  secret_id          = local.database_secret_arn
  rotate_immediately = false

  rotation_rules {
    schedule_expression = "cron(0 7 ? * SUN *)"
    duration            = "1h"
  }
}

# values are put by a person, and are in no state: docs/aws.md
resource "aws_secretsmanager_secret" "this" {
  #checkov:skip=CKV2_AWS_57:people make API keys and channels; they rotate by adding the new one first (docs/operations.md, Rotation)
  for_each = toset(["api-keys", "alarm-channels"])

  name                    = "${local.name}/${each.key}"
  kms_key_id              = aws_kms_key.this.arn
  recovery_window_in_days = 30
}
