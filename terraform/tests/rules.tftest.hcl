# Every resource with a mocked provider: what must hold, whatever else changes. What AWS would compute is mocked when
# planning, so nothing is applied or destroyed: a third of the time.
mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  environment       = "prod"
  profile           = "prod"
  domain            = "taxi.example.org"
  zone_id           = "Z0000000EXAMPLE"
  github_repository = "example/taxi"
  alarm_emails      = ["taxi@example.org"]
  operator_cidrs    = ["203.0.113.0/24"]
  budget_usd        = 240
  image_digests = {
    service = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    jobs    = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
  }
}

run "prod" {
  command = plan

  # storage
  assert {
    condition     = alltrue([for block in aws_s3_bucket_public_access_block.this : block.block_public_acls && block.block_public_policy && block.ignore_public_acls && block.restrict_public_buckets]) && length(aws_s3_bucket_public_access_block.this) == length(aws_s3_bucket.this)
    error_message = "Expected every bucket closed to the public in all four ways."
  }

  assert {
    condition     = alltrue([for one in aws_s3_bucket_versioning.this : one.versioning_configuration[0].status == "Enabled"]) && length(aws_s3_bucket_versioning.this) == length(aws_s3_bucket.this)
    error_message = "Expected every bucket versioned."
  }

  assert {
    condition     = alltrue([for name, one in aws_s3_bucket_server_side_encryption_configuration.this : [for rule in one.rule : rule.apply_server_side_encryption_by_default[0].sse_algorithm][0] == (name == "logs" ? "AES256" : "aws:kms")])
    error_message = "Expected every bucket encrypted by our key, and the logs by S3's."
  }

  assert {
    condition     = aws_s3_bucket.this["records"].object_lock_enabled && aws_s3_bucket_object_lock_configuration.records.rule[0].default_retention[0].mode == "COMPLIANCE"
    error_message = "Expected records that nobody can delete before their time."
  }

  assert {
    condition     = alltrue([for one in aws_s3_bucket.this : !one.force_destroy]) && alltrue([for one in aws_ecr_repository.this : !one.force_delete])
    error_message = "Expected that a bucket or repository with something in it cannot be destroyed."
  }

  assert {
    condition     = alltrue([for one in data.aws_iam_policy_document.bucket : anytrue([for statement in one.statement : statement.effect == "Deny" && anytrue([for condition in statement.condition : condition.variable == "aws:SecureTransport" && contains(condition.values, "false")])])])
    error_message = "Expected every bucket to refuse requests without TLS."
  }

  assert {
    condition     = aws_kms_key.this.enable_key_rotation && aws_efs_file_system.data.encrypted
    error_message = "Expected a key that rotates, and encrypted files."
  }

  # database
  assert {
    condition     = aws_db_instance.this.multi_az && aws_db_instance.this.storage_encrypted && !aws_db_instance.this.publicly_accessible && aws_db_instance.this.deletion_protection && !aws_db_instance.this.skip_final_snapshot && aws_db_instance.this.backup_retention_period >= 14
    error_message = "Expected a database with a standby, encrypted, private, protected and backed up for two weeks."
  }

  assert {
    condition     = aws_db_instance.this.manage_master_user_password && length(aws_secretsmanager_secret_rotation.database.rotation_rules) == 1
    error_message = "Expected a password that AWS makes and changes."
  }

  assert {
    condition     = contains([for one in aws_db_parameter_group.this.parameter : "${one.name}=${one.value}"], "rds.force_ssl=1")
    error_message = "Expected a database that refuses connections without TLS."
  }

  # network
  assert {
    condition     = alltrue([for one in aws_vpc_security_group_ingress_rule.inside : one.referenced_security_group_id != null && one.cidr_ipv4 == null])
    error_message = "Expected that inside the network only named groups reach each other."
  }

  assert {
    condition     = alltrue([for name, one in local.reaches : one.to != "jobs"]) && toset([for one in local.reaches : one.from if one.to == "database"]) == toset(["service", "jobs"])
    error_message = "Expected that nothing reaches the jobs, and only tasks the database."
  }

  assert {
    condition     = alltrue([for one in aws_vpc_security_group_ingress_rule.callers : contains([80, 443], one.from_port) && one.from_port == one.to_port])
    error_message = "Expected callers at ports 80 and 443 alone."
  }

  assert {
    condition     = alltrue([for one in aws_ecs_service.this : !one.network_configuration[0].assign_public_ip]) && length(aws_route_table.private.route) == 0 && toset(keys(aws_vpc_endpoint.interface)) == toset(["ecr.api", "ecr.dkr", "logs", "secretsmanager"])
    error_message = "Expected services in private subnets, which reach AWS by endpoints."
  }

  assert {
    condition     = startswith(aws_lb_listener.https.ssl_policy, "ELBSecurityPolicy-TLS13-") && aws_lb_listener.http.default_action[0].type == "redirect"
    error_message = "Expected TLS 1.3, and HTTP only to be sent there."
  }

  assert {
    condition     = aws_lb.this.enable_deletion_protection && aws_lb.this.drop_invalid_header_fields && aws_lb.this.access_logs[0].enabled
    error_message = "Expected a balancer that is protected, refuses malformed headers and keeps a log."
  }

  assert {
    condition     = alltrue([for one in aws_security_group.this : can(regex("^[0-9A-Za-z_ .:/()#,@+=&;{}!$*-]{1,255}$", one.description))])
    error_message = "Expected descriptions of security groups in the characters that EC2 takes."
  }

  # tasks
  assert {
    condition     = aws_ecs_service.this["stable"].desired_count == 2 && aws_ecs_service.this["canary"].desired_count == 0
    error_message = "Expected two tasks, and no canary until delivery starts one."
  }

  assert {
    condition     = alltrue([for one in aws_ecs_service.this : one.deployment_circuit_breaker[0].rollback && one.availability_zone_rebalancing == "ENABLED"]) && alltrue([for name in ["stable", "canary"] : aws_ecs_service.this[name].alarms[0].rollback && length(aws_ecs_service.this[name].alarms[0].alarm_names) == 2])
    error_message = "Expected deployments that roll back by themselves: tasks that do not start, and alarms."
  }

  assert {
    condition = alltrue([for one in aws_ecs_task_definition.this : alltrue([for container in jsondecode(one.container_definitions) :
    container.user == "1000:1000" && container.readonlyRootFilesystem && !container.privileged && contains(container.linuxParameters.capabilities.drop, "ALL") && can(regex("@sha256:[0-9a-f]{64}$", container.image))])])
    error_message = "Expected containers without root, on a read-only file system, without capabilities, by digest."
  }

  assert {
    condition     = alltrue([for one in aws_ecs_task_definition.this : alltrue([for variable in jsondecode(one.container_definitions)[0].environment : !can(regex("(?i)password|api_key|token", variable.name)) && !can(regex("://[^/@]+:[^/@]+@", variable.value))])])
    error_message = "Expected secrets by their ARN alone, in no variable."
  }

  assert {
    condition     = [for variable in jsondecode(aws_ecs_task_definition.this["service"].container_definitions)[0].environment : variable.value if variable.name == "TAXI_PROXIES"] == ["10.40.0.0/24,10.40.1.0/24"]
    error_message = "Expected the service to take the caller's address from the balancer's subnets alone."
  }

  assert {
    condition     = aws_lb_target_group.service["stable"].health_check[0].path == "/readyz" && aws_lb_target_group.service["canary"].health_check[0].path == "/readyz"
    error_message = "Expected the balancer to ask /readyz."
  }

  assert {
    condition     = alltrue([for one in aws_scheduler_schedule.job : one.schedule_expression_timezone == "America/New_York" && one.target[0].dead_letter_config[0].arn != null]) && toset(keys(aws_scheduler_schedule.job)) == toset(["arrivals", "alarms", "metrics"])
    error_message = "Expected the month, alarms and metrics in New York's time, and a place for what could not start."
  }

  # images
  assert {
    condition     = alltrue([for one in aws_ecr_repository.this : one.image_tag_mutability == "IMMUTABLE"])
    error_message = "Expected tags that nobody moves."
  }

  assert {
    condition = alltrue([for one in aws_ecr_lifecycle_policy.this : alltrue([for rule in jsondecode(one.policy).rules :
      rule.selection.tagPatternList == ["release-*"] ? rule.rulePriority == 1 && rule.selection.countNumber >= 10000 : rule.selection.tagPatternList == ["build-*"] && rule.rulePriority > 1
    ]) && length(jsondecode(one.policy).rules) == 2])
    error_message = "Expected a lifecycle that expires builds and never a release, which may be the way back."
  }

  # rights
  assert {
    condition = alltrue([for statement in flatten([
      [for one in data.aws_iam_policy_document.execution : one.statement], [for one in data.aws_iam_policy_document.task : one.statement],
      data.aws_iam_policy_document.scheduler.statement, data.aws_iam_policy_document.deploy.statement,
      ]) : !contains(statement.resources, "*") || alltrue([for action in statement.actions : can(regex("^[a-z-]+:(Get|List|Describe)[A-Za-z]+$", action))
    ])])
    error_message = "Expected `*` as a resource only where something is read."
  }

  assert {
    condition = alltrue([for statement in flatten([
      [for one in data.aws_iam_policy_document.execution : one.statement], [for one in data.aws_iam_policy_document.task : one.statement],
      data.aws_iam_policy_document.scheduler.statement, data.aws_iam_policy_document.deploy.statement,
    ]) : alltrue([for action in statement.actions : !strcontains(action, "*")])])
    error_message = "Expected every action by its whole name."
  }

  assert {
    condition = alltrue([for statement in concat(data.aws_iam_policy_document.scheduler.statement, data.aws_iam_policy_document.deploy.statement) : !contains(statement.actions, "iam:PassRole") || anytrue([for condition in statement.condition : condition.variable == "iam:PassedToService" && tolist(condition.values) == tolist(["ecs-tasks.amazonaws.com"])
    ])])
    error_message = "Expected roles to be passed to ECS's tasks alone."
  }

  assert {
    condition     = alltrue([for statement in data.aws_iam_policy_document.task["service"].statement : alltrue([for action in statement.actions : !can(regex("Put|Delete|Write", action))])]) && alltrue([for one in data.aws_iam_policy_document.task : alltrue([for statement in one.statement : alltrue([for action in statement.actions : !can(regex("Delete|BypassGovernance", action))])])])
    error_message = "Expected a service that only reads, and tasks that delete nothing."
  }

  assert {
    condition = alltrue([for name, one in data.aws_iam_policy_document.github_assume : toset([for condition in one.statement[0].condition : "${condition.test} ${condition.variable} ${join(",", condition.values)}"]) == toset([
      "StringEquals token.actions.githubusercontent.com:aud sts.amazonaws.com",
      "StringEquals token.actions.githubusercontent.com:sub repo:example/taxi:environment:${name == "deploy" ? "prod" : "prod-plan"}",
    ])])
    error_message = "Expected each of GitHub's roles for exactly one subject."
  }

  # watching
  assert {
    condition = toset(keys(aws_cloudwatch_metric_alarm.this)) == toset([
      "balancer-failures", "database-busy", "database-full", "jobs-errors", "jobs-not-started", "jobs-silent", "predictions-lost",
      "service-away", "service-errors", "service-failures", "service-memory", "service-slow", "version-refused",
    ])
    error_message = "Expected the thirteen alarms of docs/aws.md."
  }

  assert {
    condition     = alltrue([for one in aws_cloudwatch_metric_alarm.this : one.alarm_actions == toset([aws_sns_topic.alarms.arn]) && one.ok_actions == toset([aws_sns_topic.alarms.arn])])
    error_message = "Expected every alarm to be told, and its end too."
  }

  assert {
    condition     = alltrue([for name in ["service-away", "jobs-silent", "database-busy", "database-full"] : aws_cloudwatch_metric_alarm.this[name].treat_missing_data == "breaching"])
    error_message = "Expected silence to be an alarm where figures always come."
  }

  assert {
    condition     = toset(keys(aws_cloudwatch_log_metric_filter.this)) == toset([for name, one in aws_cloudwatch_metric_alarm.this : one.metric_name if one.namespace == "taxi-prod"])
    error_message = "Expected a filter behind every alarm on our logs."
  }

  assert {
    condition     = alltrue([for one in aws_cloudwatch_log_group.this : one.retention_in_days > 0])
    error_message = "Expected logs that end."
  }

  assert {
    condition     = length(aws_sns_topic_subscription.email) == 1 && aws_sns_topic_subscription.queue.protocol == "sqs" && aws_cloudwatch_event_target.job_failed.arn == aws_sns_topic.alarms.arn
    error_message = "Expected alarms, and jobs that fail, to reach a person and the queue."
  }

  assert {
    condition     = length(aws_budgets_budget.month.notification) == 2 && aws_ce_anomaly_subscription.alarms.frequency == "IMMEDIATE"
    error_message = "Expected a budget and a look-out for odd costs."
  }
}

# where the lean profile differs
run "lean" {
  command = plan

  variables {
    environment    = "dev"
    profile        = "lean"
    operator_cidrs = []
  }

  assert {
    condition     = aws_ecs_service.this["stable"].desired_count == 1 && aws_ecs_service.this["mlflow"].desired_count == 0 && !aws_db_instance.this.multi_az && length(aws_vpc_endpoint.interface) == 0
    error_message = "Expected one task, no standby and no endpoints that cost."
  }

  assert {
    condition     = aws_db_instance.this.backup_retention_period >= 7 && !aws_db_instance.this.publicly_accessible && aws_db_instance.this.deletion_protection
    error_message = "Expected a database that is private, protected and backed up in the lean profile too."
  }

  assert {
    condition     = length(aws_lb_listener_rule.mlflow) == 0
    error_message = "Expected MLflow's pages for nobody where no network is named."
  }

  assert {
    condition     = local.subjects.deploy == "repo:example/taxi:environment:dev"
    error_message = "Expected each environment to trust its own deployments alone."
  }
}

run "what_would_open_a_door_is_refused" {
  command = plan

  variables {
    profile           = "cheap"
    image_digests     = { service = "latest", jobs = "latest" }
    github_repository = "example/*"
    operator_cidrs    = ["0.0.0.0/0"]
    alarm_emails      = []
  }

  expect_failures = [var.profile, var.image_digests, var.github_repository, var.operator_cidrs, var.alarm_emails]
}
