resource "aws_sns_topic" "alarms" {
  name              = "${local.name}-alarms"
  kms_master_key_id = aws_kms_key.this.arn
}

data "aws_iam_policy_document" "alarms" {
  statement {
    sid       = "Services"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alarms.arn]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com", "events.amazonaws.com", "budgets.amazonaws.com", "costalerts.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

resource "aws_sns_topic_policy" "alarms" {
  arn    = aws_sns_topic.alarms.arn
  policy = data.aws_iam_policy_document.alarms.json
}

resource "aws_sns_topic_subscription" "email" {
  for_each = toset(var.alarm_emails)

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.key
}

# keeps every message for two weeks, and is where operate/drill.py looks whether one came
resource "aws_sqs_queue" "alarms" {
  name                      = "${local.name}-alarms"
  message_retention_seconds = 1209600
  kms_master_key_id         = aws_kms_key.this.arn
}

resource "aws_sqs_queue_policy" "alarms" {
  queue_url = aws_sqs_queue.alarms.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Topic"
      Effect    = "Allow"
      Action    = "sqs:SendMessage"
      Principal = { Service = "sns.amazonaws.com" }
      Resource  = aws_sqs_queue.alarms.arn
      Condition = { ArnEquals = { "aws:SourceArn" = aws_sns_topic.alarms.arn } }
    }]
  })
}

resource "aws_sns_topic_subscription" "queue" {
  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "sqs"
  endpoint  = aws_sqs_queue.alarms.arn
}

locals {
  # lines of the log, "2026-11-28 07:00:00 ERROR what is wrong": words are looked for as they stand
  log_patterns = {
    service-errors   = { group = "service", pattern = "\" ERROR \"" }
    predictions-lost = { group = "service", pattern = "\"predictions are being lost\"" }
    version-refused  = { group = "service", pattern = "\" is refused as \"" }
    jobs-errors      = { group = "jobs", pattern = "\" ERROR \"" }
  }
  balancer = { LoadBalancer = aws_lb.this.arn_suffix }
  stable   = merge(local.balancer, { TargetGroup = aws_lb_target_group.service["stable"].arn_suffix })
  database = { DBInstanceIdentifier = aws_db_instance.this.identifier }
  own      = { namespace = local.name, dimensions = {}, statistic = "Sum", comparison = "GreaterThanThreshold", missing = "notBreaching" }

  # a deployment during which one of these goes off is rolled back
  rollback_alarms = ["service-failures", "service-slow"]

  alarms = {
    service-failures  = { namespace = "AWS/ApplicationELB", metric = "HTTPCode_Target_5XX_Count", dimensions = local.balancer, statistic = "Sum", comparison = "GreaterThanThreshold", threshold = 5, period = 60, periods = 3, missing = "notBreaching", says = "more than 5 answers with 5xx a minute" }
    balancer-failures = { namespace = "AWS/ApplicationELB", metric = "HTTPCode_ELB_5XX_Count", dimensions = local.balancer, statistic = "Sum", comparison = "GreaterThanThreshold", threshold = 5, period = 60, periods = 3, missing = "notBreaching", says = "the balancer answers 5xx itself: no task takes requests" }
    service-slow      = { namespace = "AWS/ApplicationELB", metric = "TargetResponseTime", dimensions = local.balancer, statistic = "p99", comparison = "GreaterThanThreshold", threshold = 0.5, period = 60, periods = 3, missing = "notBreaching", says = "99 % of answers take up to more than 0.5 s" }
    service-away      = { namespace = "AWS/ApplicationELB", metric = "HealthyHostCount", dimensions = local.stable, statistic = "Minimum", comparison = "LessThanThreshold", threshold = 1, period = 60, periods = 3, missing = "breaching", says = "no task of the service is ready" }
    service-memory    = { namespace = "AWS/ECS", metric = "MemoryUtilization", dimensions = { ClusterName = local.name, ServiceName = "${local.name}-stable" }, statistic = "Maximum", comparison = "GreaterThanThreshold", threshold = 90, period = 300, periods = 3, missing = "notBreaching", says = "the service has used more than 90 % of its memory" }
    service-errors    = merge(local.own, { metric = "service-errors", threshold = 0, period = 300, periods = 1, says = "the service wrote a line of level ERROR" })
    predictions-lost  = merge(local.own, { metric = "predictions-lost", threshold = 0, period = 60, periods = 1, says = "predictions are being lost: the store is away and the spool is full" })
    version-refused   = merge(local.own, { metric = "version-refused", threshold = 0, period = 300, periods = 1, says = "the service refused a version that an alias names" })
    jobs-errors       = merge(local.own, { metric = "jobs-errors", threshold = 0, period = 300, periods = 1, says = "a job wrote a line of level ERROR" })
    jobs-silent       = { namespace = "AWS/Logs", metric = "IncomingLogEvents", dimensions = { LogGroupName = "/${local.name}/jobs" }, statistic = "Sum", comparison = "LessThanThreshold", threshold = 1, period = 3600, periods = 3, missing = "breaching", says = "no hourly job has written anything for three hours" }
    jobs-not-started  = { namespace = "AWS/SQS", metric = "ApproximateNumberOfMessagesVisible", dimensions = { QueueName = "${local.name}-not-started" }, statistic = "Maximum", comparison = "GreaterThanThreshold", threshold = 0, period = 300, periods = 1, missing = "notBreaching", says = "the scheduler could not start a job" }
    database-busy     = { namespace = "AWS/RDS", metric = "CPUUtilization", dimensions = local.database, statistic = "Average", comparison = "GreaterThanThreshold", threshold = 80, period = 300, periods = 3, missing = "breaching", says = "the database has used more than 80 % of its CPU" }
    database-full     = { namespace = "AWS/RDS", metric = "FreeStorageSpace", dimensions = local.database, statistic = "Minimum", comparison = "LessThanThreshold", threshold = 2147483648, period = 300, periods = 1, missing = "breaching", says = "the database has less than 2 GiB left" }
  }
}

resource "aws_cloudwatch_log_metric_filter" "this" {
  for_each = local.log_patterns

  name           = "${local.name}-${each.key}"
  log_group_name = aws_cloudwatch_log_group.this[each.value.group].name
  pattern        = each.value.pattern

  metric_transformation {
    name      = each.key
    namespace = local.name
    value     = "1"
  }
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name          = "${local.name}-${each.key}"
  alarm_description   = "${each.value.says}. docs/aws.md, section Alarms"
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic == "p99" ? null : each.value.statistic
  extended_statistic  = each.value.statistic == "p99" ? "p99" : null
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  period              = each.value.period
  evaluation_periods  = each.value.periods
  treat_missing_data  = each.value.missing
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = local.name
  dashboard_body = jsonencode({
    widgets = [for index, name in sort(keys(local.alarms)) : {
      type   = "metric"
      x      = 8 * (index % 3)
      y      = 6 * floor(index / 3)
      width  = 8
      height = 6
      properties = {
        title       = local.alarms[name].says
        region      = var.region
        annotations = { alarms = [aws_cloudwatch_metric_alarm.this[name].arn] }
      }
    }]
  })
}
