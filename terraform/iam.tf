data "aws_iam_policy_document" "tasks_assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

# starts a task: fetches its image and its secrets, writes its log
resource "aws_iam_role" "execution" {
  for_each = local.containers

  name               = "${local.name}-${each.key}-execution"
  assume_role_policy = data.aws_iam_policy_document.tasks_assume.json
}

data "aws_iam_policy_document" "execution" {
  for_each = local.containers

  statement {
    sid       = "Login"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]
  }

  statement {
    sid       = "Image"
    actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    resources = [aws_ecr_repository.this[each.value.image].arn]
  }

  statement {
    sid       = "Log"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.this[each.key].arn}:*"]
  }

  statement {
    sid       = "Secrets"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [for name, arn in local.task_secrets[each.key] : trimsuffix(arn, ":password::")]
  }

  statement {
    sid       = "Key"
    actions   = ["kms:Decrypt"]
    resources = [aws_kms_key.this.arn]
  }
}

resource "aws_iam_role_policy" "execution" {
  for_each = local.containers

  name   = "start"
  role   = aws_iam_role.execution[each.key].id
  policy = data.aws_iam_policy_document.execution[each.key].json
}

# what runs in a task may do this
resource "aws_iam_role" "task" {
  for_each = local.containers

  name               = "${local.name}-${each.key}-task"
  assume_role_policy = data.aws_iam_policy_document.tasks_assume.json
}

locals {
  # the service reads models; jobs write them, what DVC keeps, and records, which they cannot replace
  reads  = { service = ["artifacts"], jobs = ["artifacts", "store", "records"], mlflow = ["artifacts"] }
  writes = { service = [], jobs = ["artifacts", "store", "records"], mlflow = ["artifacts"] }
}

data "aws_iam_policy_document" "task" {
  for_each = local.containers

  statement {
    sid       = "List"
    actions   = ["s3:ListBucket", "s3:GetBucketLocation"]
    resources = [for bucket in local.reads[each.key] : aws_s3_bucket.this[bucket].arn]
  }

  statement {
    sid       = "Read"
    actions   = ["s3:GetObject"]
    resources = [for bucket in local.reads[each.key] : "${aws_s3_bucket.this[bucket].arn}/*"]
  }

  dynamic "statement" {
    for_each = length(local.writes[each.key]) > 0 ? [1] : []

    content {
      sid       = "Write"
      actions   = ["s3:PutObject", "s3:AbortMultipartUpload"]
      resources = [for bucket in local.writes[each.key] : "${aws_s3_bucket.this[bucket].arn}/*"]
    }
  }

  statement {
    sid       = "Key"
    actions   = length(local.writes[each.key]) > 0 ? ["kms:Decrypt", "kms:GenerateDataKey"] : ["kms:Decrypt"]
    resources = [aws_kms_key.this.arn]
  }

  dynamic "statement" {
    for_each = each.key == "jobs" ? [1] : []

    content {
      sid       = "Files"
      actions   = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]
      resources = [aws_efs_file_system.data.arn]

      condition {
        test     = "StringEquals"
        variable = "elasticfilesystem:AccessPointArn"
        values   = [aws_efs_access_point.data.arn]
      }
    }
  }
}

resource "aws_iam_role_policy" "task" {
  for_each = local.containers

  name   = "work"
  role   = aws_iam_role.task[each.key].id
  policy = data.aws_iam_policy_document.task[each.key].json
}

resource "aws_iam_role" "scheduler" {
  name = "${local.name}-scheduler"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "scheduler.amazonaws.com" }
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
}

data "aws_iam_policy_document" "scheduler" {
  statement {
    sid       = "Run"
    actions   = ["ecs:RunTask"]
    resources = ["${aws_ecs_task_definition.this["jobs"].arn_without_revision}:*", aws_ecs_task_definition.this["jobs"].arn_without_revision]

    condition {
      test     = "ArnEquals"
      variable = "ecs:cluster"
      values   = [aws_ecs_cluster.this.arn]
    }
  }

  statement {
    sid       = "Tag"
    actions   = ["ecs:TagResource"]
    resources = ["${local.arn_prefix}:ecs:${var.region}:${local.account}:task/${local.name}/*"]
  }

  statement {
    sid       = "Restart"
    actions   = ["ecs:UpdateService"]
    resources = [for service in aws_ecs_service.this : service.id]
  }

  statement {
    sid       = "Pass"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.execution["jobs"].arn, aws_iam_role.task["jobs"].arn]

    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ecs-tasks.amazonaws.com"]
    }
  }

  statement {
    sid       = "NotStarted"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.not_started.arn]
  }

  statement {
    sid       = "Key"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [aws_kms_key.this.arn]
  }
}

resource "aws_iam_role_policy" "scheduler" {
  name   = "start"
  role   = aws_iam_role.scheduler.id
  policy = data.aws_iam_policy_document.scheduler.json
}
