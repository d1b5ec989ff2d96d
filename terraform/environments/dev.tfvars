# example.org, the zone, the repository and the address are yours to set
environment       = "dev"
profile           = "lean"
domain            = "dev.taxi.example.org"
zone_id           = "Z0000000EXAMPLE"
github_repository = "example/taxi"
alarm_emails      = ["taxi-dev@example.org"]
budget_usd        = 110
image_digests = {
  service = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
  jobs    = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
}
