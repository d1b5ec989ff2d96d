locals {
  name       = "taxi-${var.environment}"
  account    = data.aws_caller_identity.current.account_id
  partition  = data.aws_partition.current.partition
  arn_prefix = "arn:${local.partition}"
  zones      = slice(data.aws_availability_zones.here.names, 0, 2)

  # everything in which the two profiles differ
  profile = {
    lean = {
      private_service = false
      service_tasks   = 1
      most_tasks      = 2
      mlflow_tasks    = 0
      multi_az        = false
      backup_days     = 7
    }
    prod = {
      private_service = true
      service_tasks   = 2
      most_tasks      = 4
      mlflow_tasks    = 1
      multi_az        = true
      backup_days     = 14
    }
  }[var.profile]

  # CPU units (1024 are one vCPU) and MiB of each kind of task
  sizes = {
    service = { cpu = 512, memory = 2048 }
    jobs    = { cpu = 2048, memory = 8192 }
    mlflow  = { cpu = 512, memory = 2048 }
  }
  # a check reads the prediction store and fits nothing
  small_job = { cpu = 512, memory = 2048 }

  ports = { service = 8000, mlflow = 5000, postgres = 5432, nfs = 2049 }
}
