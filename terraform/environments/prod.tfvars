# example.org, the zone, the repository and the address are yours to set
environment       = "prod"
profile           = "prod"
domain            = "taxi.example.org"
zone_id           = "Z0000000EXAMPLE"
github_repository = "example/taxi"
alarm_emails      = ["taxi-prod@example.org"]
budget_usd        = 240
image_digests = {
  service = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
  jobs    = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
}
