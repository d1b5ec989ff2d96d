# example.org, the zone, the repository and the address are yours to set
environment       = "staging"
profile           = "lean"
domain            = "staging.taxi.example.org"
zone_id           = "Z0000000EXAMPLE"
github_repository = "example/taxi"
alarm_emails      = ["taxi-staging@example.org"]
budget_usd        = 110
image_digests = {
  service = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
  jobs    = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
}
