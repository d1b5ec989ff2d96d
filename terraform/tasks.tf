locals {
  stores = {
    MLFLOW_TRACKING_URI = local.registry_address
    TAXI_PREDICTIONS    = local.database_address
    TAXI_METRICS        = local.database_address
    TAXI_DATA           = "/data"
  }
  # TAXI_REPORTS lies in TAXI_DATA, which the jobs share
  job_environment = merge(local.stores, {
    TAXI_REPORTS   = "/data/reports"
    TAXI_ARTIFACTS = "s3://${aws_s3_bucket.this["artifacts"].id}/mlflow"
    TAXI_SOURCE    = var.taxi_source
    PREFECT_HOME   = "/tmp/prefect"
  })
  # only what each kind of task needs
  task_secrets = {
    service = {
      PGPASSWORD    = "${local.database_secret_arn}:password::"
      TAXI_API_KEYS = aws_secretsmanager_secret.this["api-keys"].arn
    }
    jobs = {
      PGPASSWORD          = "${local.database_secret_arn}:password::"
      TAXI_ALARM_CHANNELS = aws_secretsmanager_secret.this["alarm-channels"].arn
    }
    mlflow = {
      PGPASSWORD = "${local.database_secret_arn}:password::"
    }
  }
  containers = {
    service = {
      image       = "service"
      command     = ["taxi", "serve", "--service", var.service, "--host", "0.0.0.0", "--port", tostring(local.ports.service), "--workers", "1"]
      environment = merge(local.stores, { TAXI_PROXIES = join(",", aws_subnet.public[*].cidr_block) })
      port        = local.ports.service
      volumes     = { data = "/data", tmp = "/tmp" }
      stop        = 90
    }
    jobs = {
      image       = "jobs"
      command     = ["taxi", "status"]
      environment = local.job_environment
      port        = null
      volumes     = { data = "/data", tmp = "/tmp" }
      stop        = 120
    }
    mlflow = {
      image = "jobs"
      command = [
        "mlflow", "server", "--host", "0.0.0.0", "--port", tostring(local.ports.mlflow), "--workers", "2",
        "--backend-store-uri", local.registry_address, "--artifacts-destination", "s3://${aws_s3_bucket.this["artifacts"].id}/mlflow",
        "--allowed-hosts", "mlflow.${var.domain},localhost:*",
      ]
      environment = { HOME = "/tmp", MLFLOW_DISABLE_TELEMETRY = "true" }
      port        = local.ports.mlflow
      volumes     = { tmp = "/tmp" }
      stop        = 30
    }
  }
}

resource "aws_ecs_cluster" "this" {
  #checkov:skip=CKV_AWS_65:container insights are paid by metric; the alarms use what ECS counts for nothing
  name = local.name

  setting {
    name  = "containerInsights"
    value = "disabled"
  }
}

resource "aws_cloudwatch_log_group" "this" {
  #checkov:skip=CKV_AWS_338:90 days of logs are enough here; log_days says otherwise where they are not
  for_each = local.containers

  name              = "/${local.name}/${each.key}"
  retention_in_days = var.log_days
  kms_key_id        = aws_kms_key.this.arn
}

# Terraform owns the family; delivery registers revisions with other images, which leave the plan empty
resource "aws_ecs_task_definition" "this" {
  for_each = local.containers

  family                   = "${local.name}-${each.key}"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = local.sizes[each.key].cpu
  memory                   = local.sizes[each.key].memory
  execution_role_arn       = aws_iam_role.execution[each.key].arn
  task_role_arn            = aws_iam_role.task[each.key].arn
  skip_destroy             = true

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = "X86_64"
  }

  container_definitions = jsonencode([{
    name                   = each.key
    image                  = "${aws_ecr_repository.this[each.value.image].repository_url}@${var.image_digests[each.value.image]}"
    command                = each.value.command
    essential              = true
    user                   = "1000:1000"
    readonlyRootFilesystem = true
    privileged             = false
    stopTimeout            = each.value.stop
    environment            = [for key, value in each.value.environment : { name = key, value = value }]
    secrets                = [for key, arn in local.task_secrets[each.key] : { name = key, valueFrom = arn }]
    mountPoints            = [for name, path in each.value.volumes : { sourceVolume = name, containerPath = path, readOnly = false }]
    portMappings           = each.value.port == null ? [] : [{ containerPort = each.value.port, hostPort = each.value.port, protocol = "tcp" }]
    linuxParameters        = { initProcessEnabled = true, capabilities = { drop = ["ALL"], add = [] } }
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.this[each.key].name
        awslogs-region        = var.region
        awslogs-stream-prefix = each.key
      }
    }
  }])

  dynamic "volume" {
    for_each = each.value.volumes

    content {
      name = volume.key

      dynamic "efs_volume_configuration" {
        for_each = each.key == "jobs" && volume.key == "data" ? [1] : []

        content {
          file_system_id     = aws_efs_file_system.data.id
          transit_encryption = "ENABLED"

          authorization_config {
            access_point_id = aws_efs_access_point.data.id
            iam             = "ENABLED"
          }
        }
      }
    }
  }
}

locals {
  services = {
    stable = { task = "service", tasks = local.profile.service_tasks, group = aws_lb_target_group.service["stable"].arn }
    canary = { task = "service", tasks = 0, group = aws_lb_target_group.service["canary"].arn }
    mlflow = { task = "mlflow", tasks = local.profile.mlflow_tasks, group = aws_lb_target_group.mlflow.arn }
  }
}

resource "aws_ecs_service" "this" {
  #checkov:skip=CKV_AWS_332:1.4.0 by its number, so that nothing changes in silence
  for_each = local.services

  name                               = "${local.name}-${each.key}"
  cluster                            = aws_ecs_cluster.this.id
  task_definition                    = aws_ecs_task_definition.this[each.value.task].arn
  desired_count                      = each.value.tasks
  launch_type                        = "FARGATE"
  platform_version                   = "1.4.0"
  availability_zone_rebalancing      = "ENABLED"
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200
  health_check_grace_period_seconds  = 60
  propagate_tags                     = "SERVICE"
  enable_execute_command             = false

  network_configuration {
    subnets          = local.profile.private_service ? aws_subnet.private[*].id : aws_subnet.public[*].id
    security_groups  = [aws_security_group.this["service"].id]
    assign_public_ip = !local.profile.private_service
  }

  load_balancer {
    target_group_arn = each.value.group
    container_name   = each.value.task
    container_port   = local.containers[each.value.task].port
  }

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  dynamic "alarms" {
    for_each = each.key == "mlflow" ? [] : [1]

    content {
      enable      = true
      rollback    = true
      alarm_names = [for name in local.rollback_alarms : aws_cloudwatch_metric_alarm.this[name].alarm_name]
    }
  }

  # the revision and how many tasks run it are delivery's and the scaling's
  lifecycle {
    ignore_changes = [task_definition, desired_count]
  }

  depends_on = [aws_lb_listener.https, aws_lb_listener_rule.mlflow_for_nobody_else, aws_iam_role_policy.execution, aws_vpc_endpoint.interface]
}
