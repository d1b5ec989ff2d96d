terraform {
  required_version = ">= 1.11, < 2"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "5.100.0"
    }
  }

  # bucket, key and region stand in environments/*.s3.tfbackend; the lock is a file beside the state
  backend "s3" {
    use_lockfile = true
    encrypt      = true
  }
}

provider "aws" {
  region      = var.region
  max_retries = 5

  default_tags {
    tags = {
      project     = "taxi"
      environment = var.environment
      made-by     = "terraform"
    }
  }
}

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_availability_zones" "here" {
  #checkov:skip=CKV_AWS_394:names are in order and the first two are taken; a zone that AWS adds comes last
  state = "available"
}
