resource "aws_acm_certificate" "this" {
  domain_name               = var.domain
  subject_alternative_names = ["mlflow.${var.domain}"]
  validation_method         = "DNS"

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_route53_record" "certificate" {
  for_each = toset([var.domain, "mlflow.${var.domain}"])

  zone_id         = var.zone_id
  name            = one([for option in aws_acm_certificate.this.domain_validation_options : option.resource_record_name if option.domain_name == each.key])
  type            = one([for option in aws_acm_certificate.this.domain_validation_options : option.resource_record_type if option.domain_name == each.key])
  records         = [one([for option in aws_acm_certificate.this.domain_validation_options : option.resource_record_value if option.domain_name == each.key])]
  ttl             = 300
  allow_overwrite = true
}

resource "aws_acm_certificate_validation" "this" {
  certificate_arn         = aws_acm_certificate.this.arn
  validation_record_fqdns = [for record in aws_route53_record.certificate : record.fqdn]
}

resource "aws_lb" "this" {
  #checkov:skip=CKV2_AWS_28:a WAF costs $6 a month and more; the service limits sizes, and rates per key
  name                       = local.name
  load_balancer_type         = "application"
  internal                   = false
  subnets                    = aws_subnet.public[*].id
  security_groups            = [aws_security_group.this["balancer"].id]
  drop_invalid_header_fields = true
  enable_deletion_protection = var.deletion_protection
  idle_timeout               = 60

  access_logs {
    bucket  = aws_s3_bucket.this["logs"].id
    prefix  = "balancer"
    enabled = true
  }

  depends_on = [aws_s3_bucket_policy.this]
}

resource "aws_route53_record" "this" {
  for_each = toset([var.domain, "mlflow.${var.domain}"])

  zone_id = var.zone_id
  name    = each.key
  type    = "A"

  alias {
    name                   = aws_lb.this.dns_name
    zone_id                = aws_lb.this.zone_id
    evaluate_target_health = true
  }
}

# delivery gives the canary some percent of the requests, by the listener's weights
resource "aws_lb_target_group" "service" {
  #checkov:skip=CKV_AWS_378:TLS ends at the balancer; behind it are our own subnets and security groups
  for_each = toset(["stable", "canary"])

  name                 = "${local.name}-${each.key}"
  vpc_id               = aws_vpc.this.id
  target_type          = "ip"
  protocol             = "HTTP"
  port                 = local.ports.service
  deregistration_delay = 30

  health_check {
    path                = "/readyz"
    matcher             = "200"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }
}

resource "aws_lb_target_group" "mlflow" {
  #checkov:skip=CKV_AWS_378:TLS ends at the balancer; behind it are our own subnets and security groups
  name                 = "${local.name}-mlflow"
  vpc_id               = aws_vpc.this.id
  target_type          = "ip"
  protocol             = "HTTP"
  port                 = local.ports.mlflow
  deregistration_delay = 30

  health_check {
    path    = "/health"
    matcher = "200"
  }
}

resource "aws_lb_listener" "http" {
  load_balancer_arn = aws_lb.this.arn
  port              = 80
  protocol          = "HTTP"

  default_action {
    type = "redirect"

    redirect {
      port        = "443"
      protocol    = "HTTPS"
      status_code = "HTTP_301"
    }
  }
}

resource "aws_lb_listener" "https" {
  load_balancer_arn = aws_lb.this.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = aws_acm_certificate_validation.this.certificate_arn

  default_action {
    type = "forward"

    forward {
      target_group {
        arn    = aws_lb_target_group.service["stable"].arn
        weight = 100
      }

      target_group {
        arn    = aws_lb_target_group.service["canary"].arn
        weight = 0
      }
    }
  }

  # the weights are delivery's
  lifecycle {
    ignore_changes = [default_action]
  }
}

# MLflow's pages are for the operators' networks alone
resource "aws_lb_listener_rule" "mlflow" {
  count = length(var.operator_cidrs) > 0 ? 1 : 0

  listener_arn = aws_lb_listener.https.arn
  priority     = 10

  action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.mlflow.arn
  }

  condition {
    host_header {
      values = ["mlflow.${var.domain}"]
    }
  }

  condition {
    source_ip {
      values = var.operator_cidrs
    }
  }
}

resource "aws_lb_listener_rule" "mlflow_for_nobody_else" {
  listener_arn = aws_lb_listener.https.arn
  priority     = 20

  action {
    type = "fixed-response"

    fixed_response {
      content_type = "text/plain"
      status_code  = "403"
    }
  }

  condition {
    host_header {
      values = ["mlflow.${var.domain}"]
    }
  }
}
