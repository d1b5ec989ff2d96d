resource "aws_ecr_repository" "this" {
  for_each = toset(["service", "jobs"])

  name                 = "${local.name}/${each.key}"
  image_tag_mutability = "IMMUTABLE"
  force_delete         = false

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = "KMS"
    kms_key         = aws_kms_key.this.arn
  }
}

# An image that a rule of higher priority selects is never expired by a lower one: what is tagged release-… stays, whatever else it is tagged.
resource "aws_ecr_lifecycle_policy" "this" {
  for_each = aws_ecr_repository.this

  repository = each.value.name
  policy = jsonencode({
    rules = [
      {
        rulePriority = 1
        description  = "releases stay: one of them is the way back"
        selection    = { tagStatus = "tagged", tagPatternList = ["release-*"], countType = "imageCountMoreThan", countNumber = 10000 }
        action       = { type = "expire" }
      },
      {
        rulePriority = 2
        description  = "builds that were not released"
        selection    = { tagStatus = "tagged", tagPatternList = ["build-*"], countType = "sinceImagePushed", countUnit = "days", countNumber = 60 }
        action       = { type = "expire" }
      },
    ]
  })
}
