# The lean profile, from nothing: where it differs.
mock_provider "aws" {
  source = "./tests/mocks"
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

run "lean" {
  command = apply

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
