locals {
  # artifacts: MLflow's models. store: DVC's remote. records: approvals and lineage, that nobody can change. logs: the balancer's and the network's
  buckets = toset(["artifacts", "store", "records", "logs"])
}

resource "aws_kms_key" "this" {
  description             = "Everything that ${local.name} keeps"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.key.json
}

resource "aws_kms_alias" "this" {
  name          = "alias/${local.name}"
  target_key_id = aws_kms_key.this.key_id
}

data "aws_iam_policy_document" "key" {
  #checkov:skip=CKV_AWS_109:the account manages its key; without this nobody could
  #checkov:skip=CKV_AWS_111:likewise
  #checkov:skip=CKV_AWS_356:in the policy of a key, * is the key
  statement {
    sid       = "Account"
    actions   = ["kms:*"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["${local.arn_prefix}:iam::${local.account}:root"]
    }
  }

  statement {
    sid       = "Services"
    actions   = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"]
    resources = ["*"]

    principals {
      type = "Service"
      identifiers = [
        "logs.${var.region}.amazonaws.com",
        "cloudwatch.amazonaws.com",
        "events.amazonaws.com",
        "sns.amazonaws.com",
        "budgets.amazonaws.com",
        "costalerts.amazonaws.com",
      ]
    }

    condition {
      test     = "StringEqualsIfExists"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

resource "aws_s3_bucket" "this" {
  #checkov:skip=CKV2_AWS_62:nothing waits for objects
  #checkov:skip=CKV_AWS_144:another region doubles storage; the loss of a region is not covered (docs/aws.md, Restore)
  #checkov:skip=CKV_AWS_145:the balancer writes its log only where S3's own key encrypts; the others have ours
  #checkov:skip=CKV_AWS_18:only our roles read these; who read which object is known only where the account has CloudTrail of data events
  for_each = local.buckets

  bucket              = "${local.name}-${each.key}-${local.account}"
  object_lock_enabled = each.key == "records"
  force_destroy       = false
}

resource "aws_s3_bucket_versioning" "this" {
  for_each = local.buckets

  bucket = aws_s3_bucket.this[each.key].id

  versioning_configuration {
    status = "Enabled"
  }
}

# the balancer writes its log only where S3's own key encrypts
resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  for_each = local.buckets

  bucket = aws_s3_bucket.this[each.key].id

  rule {
    bucket_key_enabled = each.key != "logs"

    apply_server_side_encryption_by_default {
      sse_algorithm     = each.key == "logs" ? "AES256" : "aws:kms"
      kms_master_key_id = each.key == "logs" ? null : aws_kms_key.this.arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  for_each = local.buckets

  bucket                  = aws_s3_bucket.this[each.key].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "this" {
  for_each = local.buckets

  bucket = aws_s3_bucket.this[each.key].id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

# what is current stays, but for logs; what it replaced goes after a while, in records after the lock
resource "aws_s3_bucket_lifecycle_configuration" "this" {
  for_each = local.buckets

  bucket = aws_s3_bucket.this[each.key].id

  rule {
    id     = "old"
    status = "Enabled"
    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }

    noncurrent_version_expiration {
      noncurrent_days = each.key == "records" ? 365 * var.record_years + 1 : 90
    }

    dynamic "expiration" {
      for_each = each.key == "logs" ? [1] : []

      content {
        days = var.log_days
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.this]
}

resource "aws_s3_bucket_object_lock_configuration" "records" {
  bucket = aws_s3_bucket.this["records"].id

  rule {
    default_retention {
      mode  = "COMPLIANCE"
      years = var.record_years
    }
  }

  depends_on = [aws_s3_bucket_versioning.this]
}

data "aws_elb_service_account" "here" {}

data "aws_iam_policy_document" "bucket" {
  for_each = local.buckets

  statement {
    sid       = "OnlyByTls"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.this[each.key].arn, "${aws_s3_bucket.this[each.key].arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }

  dynamic "statement" {
    for_each = each.key == "logs" ? [1] : []

    content {
      sid       = "BalancersLog"
      actions   = ["s3:PutObject"]
      resources = ["${aws_s3_bucket.this[each.key].arn}/balancer/*"]

      principals {
        type        = "AWS"
        identifiers = [data.aws_elb_service_account.here.arn]
      }
    }
  }

  dynamic "statement" {
    for_each = each.key == "logs" ? { PutObject = "/AWSLogs/*", GetBucketAcl = "" } : {}

    content {
      sid       = "NetworksLog${statement.key}"
      actions   = ["s3:${statement.key}"]
      resources = ["${aws_s3_bucket.this[each.key].arn}${statement.value}"]

      principals {
        type        = "Service"
        identifiers = ["delivery.logs.amazonaws.com"]
      }

      condition {
        test     = "StringEquals"
        variable = "aws:SourceAccount"
        values   = [local.account]
      }
    }
  }
}

resource "aws_s3_bucket_policy" "this" {
  for_each = local.buckets

  bucket = aws_s3_bucket.this[each.key].id
  policy = data.aws_iam_policy_document.bucket[each.key].json

  depends_on = [
    aws_s3_bucket_public_access_block.this,
    aws_s3_bucket_lifecycle_configuration.this,
    aws_s3_bucket_object_lock_configuration.records,
  ]
}

# TAXI_DATA of the jobs: months, reports, the alarm book; it outlives every task
resource "aws_efs_file_system" "data" {
  encrypted  = true
  kms_key_id = aws_kms_key.this.arn

  lifecycle_policy {
    transition_to_ia = "AFTER_30_DAYS"
  }

  lifecycle_policy {
    transition_to_primary_storage_class = "AFTER_1_ACCESS"
  }

  tags = { Name = "${local.name}-data" }
}

resource "aws_efs_mount_target" "data" {
  count = 2

  file_system_id  = aws_efs_file_system.data.id
  subnet_id       = aws_subnet.private[count.index].id
  security_groups = [aws_security_group.this["files"].id]
}

resource "aws_efs_access_point" "data" {
  file_system_id = aws_efs_file_system.data.id

  posix_user {
    uid = 1000
    gid = 1000
  }

  root_directory {
    path = "/taxi"

    creation_info {
      owner_uid   = 1000
      owner_gid   = 1000
      permissions = "0750"
    }
  }
}
