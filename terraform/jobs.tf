locals {
  # what is run when, in New York's time; command and size replace the task definition's
  jobs = {
    arrivals = { at = "cron(0 7 * * ? *)", size = local.sizes.jobs, command = ["taxi", "arrivals", "--service", var.service, "--no-version"] }
    alarms   = { at = "cron(5 * * * ? *)", size = local.small_job, command = ["taxi", "alarms", "check", "--live", "--service", var.service] }
    metrics  = { at = "cron(35 * * * ? *)", size = local.small_job, command = ["taxi", "metrics", "collect", "--service", var.service] }
  }
}

resource "aws_scheduler_schedule_group" "this" {
  name = local.name
}

resource "aws_sqs_queue" "not_started" {
  name                      = "${local.name}-not-started"
  message_retention_seconds = 1209600
  kms_master_key_id         = aws_kms_key.this.arn
}

resource "aws_scheduler_schedule" "job" {
  for_each = local.jobs

  name                         = "${local.name}-${each.key}"
  group_name                   = aws_scheduler_schedule_group.this.name
  schedule_expression          = each.value.at
  schedule_expression_timezone = "America/New_York"
  kms_key_arn                  = aws_kms_key.this.arn

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = aws_ecs_cluster.this.arn
    role_arn = aws_iam_role.scheduler.arn

    # the family without a revision: the newest, which delivery made
    ecs_parameters {
      task_definition_arn = aws_ecs_task_definition.this["jobs"].arn_without_revision
      launch_type         = "FARGATE"
      platform_version    = "1.4.0"
      propagate_tags      = "TASK_DEFINITION"

      # the publisher is on the internet; a NAT gateway would cost $33 a month for some hours of it
      network_configuration {
        subnets          = aws_subnet.public[*].id
        security_groups  = [aws_security_group.this["jobs"].id]
        assign_public_ip = true
      }
    }

    input = jsonencode({
      cpu    = tostring(each.value.size.cpu)
      memory = tostring(each.value.size.memory)
      containerOverrides = [{
        name    = "jobs"
        command = each.value.command
        cpu     = each.value.size.cpu
        memory  = each.value.size.memory
      }]
    })

    retry_policy {
      maximum_retry_attempts       = 3
      maximum_event_age_in_seconds = 3600
    }

    dead_letter_config {
      arn = aws_sqs_queue.not_started.arn
    }
  }
}

# an hour after the database's password changed
resource "aws_scheduler_schedule" "restart" {
  for_each = toset([for name, service in local.services : name if service.tasks > 0])

  name                         = "${local.name}-restart-${each.key}"
  group_name                   = aws_scheduler_schedule_group.this.name
  schedule_expression          = "cron(0 9 ? * SUN *)"
  schedule_expression_timezone = "UTC"
  kms_key_arn                  = aws_kms_key.this.arn

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = "${local.arn_prefix}:scheduler:::aws-sdk:ecs:updateService"
    role_arn = aws_iam_role.scheduler.arn
    input    = jsonencode({ Cluster = aws_ecs_cluster.this.arn, Service = aws_ecs_service.this[each.key].name, ForceNewDeployment = true })

    retry_policy {
      maximum_retry_attempts       = 3
      maximum_event_age_in_seconds = 3600
    }

    dead_letter_config {
      arn = aws_sqs_queue.not_started.arn
    }
  }
}

# a job that ends with anything but 0 is told, with its exit code and reason
resource "aws_cloudwatch_event_rule" "job_failed" {
  name        = "${local.name}-job-failed"
  description = "A job ended with an exit code other than 0, or was never started"
  event_pattern = jsonencode({
    source      = ["aws.ecs"]
    detail-type = ["ECS Task State Change"]
    detail = {
      clusterArn = [aws_ecs_cluster.this.arn]
      group      = ["family:${local.name}-jobs"]
      lastStatus = ["STOPPED"]
      "$or" = [
        { containers = { exitCode = [{ anything-but = [0] }] } },
        { stopCode = ["TaskFailedToStart"] },
      ]
    }
  })
}

resource "aws_cloudwatch_event_target" "job_failed" {
  rule      = aws_cloudwatch_event_rule.job_failed.name
  target_id = "alarms"
  arn       = aws_sns_topic.alarms.arn
}
