output "address" {
  description = "Where callers find the service."
  value       = "https://${var.domain}"
}

output "environment" {
  description = "What a command run elsewhere sets to work on this environment's stores; the password is in database_secret_arn."
  value       = local.job_environment
}

output "database_secret_arn" {
  description = "Secret with the database's user and password, which change every Sunday."
  value       = local.database_secret_arn
}

output "secret_arns" {
  description = "Secrets whose values a person puts."
  value       = { for name, secret in aws_secretsmanager_secret.this : name => secret.arn }
}

output "buckets" {
  description = "Buckets, by what they hold."
  value       = { for name, bucket in aws_s3_bucket.this : name => bucket.id }
}

output "repositories" {
  description = "Where images are pushed."
  value       = { for name, repository in aws_ecr_repository.this : name => repository.repository_url }
}

output "cluster" {
  description = "ECS cluster."
  value       = aws_ecs_cluster.this.name
}

output "services" {
  description = "ECS services: stable, canary, mlflow."
  value       = { for name, service in aws_ecs_service.this : name => service.name }
}

output "task_families" {
  description = "Families of task definitions; delivery registers their revisions."
  value       = { for name, task in aws_ecs_task_definition.this : name => task.family }
}

output "task_definitions" {
  description = "Revisions that Terraform made."
  value       = { for name, task in aws_ecs_task_definition.this : name => task.arn }
}

output "job_network" {
  description = "Subnets and security group that a job is run in by hand."
  value       = { subnets = aws_subnet.public[*].id, security_groups = [aws_security_group.this["jobs"].id], assign_public_ip = "ENABLED" }
}

output "listener_arn" {
  description = "Listener whose weights share requests between stable and canary."
  value       = aws_lb_listener.https.arn
}

output "target_groups" {
  description = "Target groups of the service."
  value       = { for name, group in aws_lb_target_group.service : name => group.arn }
}

output "alarms" {
  description = "What the alarm drill needs: topic, queue, alarms, and those that roll a deployment back."
  value = {
    topic_arn = aws_sns_topic.alarms.arn
    queue_url = aws_sqs_queue.alarms.id
    names     = [for alarm in aws_cloudwatch_metric_alarm.this : alarm.alarm_name]
    rollback  = [for name in local.rollback_alarms : "${local.name}-${name}"]
  }
}

output "github_roles" {
  description = "Roles that workflows of the repository take."
  value       = { for name, role in aws_iam_role.github : name => role.arn }
}
