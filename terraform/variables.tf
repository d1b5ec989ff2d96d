variable "environment" {
  description = "Which environment this is; every name begins with it, and each has its own state and account."
  type        = string

  validation {
    condition     = contains(["dev", "staging", "prod"], var.environment)
    error_message = "Expected an environment, one of dev, staging, prod; got ${var.environment}."
  }
}

variable "profile" {
  description = "lean: one task in public subnets, one database. prod: two tasks in private subnets of two zones, a standby database."
  type        = string

  validation {
    condition     = contains(["lean", "prod"], var.profile)
    error_message = "Expected a profile, lean or prod; got ${var.profile}."
  }
}

variable "region" {
  description = "AWS region; prices.yaml is that of us-east-1."
  type        = string
  default     = "us-east-1"
}

variable "service" {
  description = "Which of the TLC's services is predicted."
  type        = string
  default     = "green"

  validation {
    condition     = contains(["green", "yellow"], var.service)
    error_message = "Expected a service, green or yellow; got ${var.service}."
  }
}

variable "taxi_source" {
  description = "Where published months come from, as TAXI_SOURCE: an https address or s3://… (docs/operations.md)."
  type        = string
  default     = "https://d37ci6vzurychx.cloudfront.net"
}

variable "domain" {
  description = "Name that callers use, as taxi.example.org; a certificate is made for it."
  type        = string
}

variable "zone_id" {
  description = "Route 53 hosted zone that the domain lies in; it exists already."
  type        = string
}

variable "image_digests" {
  description = "Digest of each image at the first apply, as sha256:…; later ones are delivery's affair."
  type        = object({ service = string, jobs = string })

  validation {
    condition     = alltrue([for digest in values(var.image_digests) : can(regex("^sha256:[0-9a-f]{64}$", digest))])
    error_message = "Expected digests as sha256: and 64 hexadecimal digits, not tags."
  }
}

variable "github_repository" {
  description = "Repository whose workflows may deploy, as owner/name."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$", var.github_repository))
    error_message = "Expected a repository as owner/name, without wildcards; got ${var.github_repository}."
  }
}

variable "caller_cidrs" {
  description = "Networks that may call the service over HTTPS; each caller needs an API key besides."
  type        = list(string)
  default     = ["0.0.0.0/0"]
}

variable "operator_cidrs" {
  description = "Networks that may open MLflow's pages at mlflow.<domain>; empty: nobody."
  type        = list(string)
  default     = []

  validation {
    condition     = !contains(var.operator_cidrs, "0.0.0.0/0")
    error_message = "Expected the operators' own networks: MLflow's pages must not be open to the world."
  }
}

variable "alarm_emails" {
  description = "Who is written to when an alarm goes off or ends; each has to confirm once."
  type        = list(string)

  validation {
    condition     = length(var.alarm_emails) > 0
    error_message = "Expected at least one address: an alarm that nobody gets is none."
  }
}

variable "budget_usd" {
  description = "US dollars a month from which on a message is sent, at 80 % of them spent and at 100 % forecast."
  type        = number
}

variable "log_days" {
  description = "How long logs are kept."
  type        = number
  default     = 90
}

variable "record_years" {
  description = "How long approvals and lineage cannot be changed or deleted, by anybody."
  type        = number
  default     = 1
}

variable "deletion_protection" {
  description = "Whether database and balancer refuse to be deleted; operate/destroy.py alone turns it off, after it checked the copy."
  type        = bool
  default     = true
}
