resource "aws_vpc" "this" {
  cidr_block           = "10.40.0.0/16"
  enable_dns_hostnames = true

  tags = { Name = local.name }
}

# nobody uses the default group: it lets nothing in or out
resource "aws_default_security_group" "closed" {
  vpc_id = aws_vpc.this.id
}

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id

  tags = { Name = local.name }
}

resource "aws_subnet" "public" {
  count = 2

  vpc_id            = aws_vpc.this.id
  availability_zone = local.zones[count.index]
  cidr_block        = cidrsubnet(aws_vpc.this.cidr_block, 8, count.index)

  tags = { Name = "${local.name}-public-${count.index}" }
}

resource "aws_subnet" "private" {
  count = 2

  vpc_id            = aws_vpc.this.id
  availability_zone = local.zones[count.index]
  cidr_block        = cidrsubnet(aws_vpc.this.cidr_block, 8, 10 + count.index)

  tags = { Name = "${local.name}-private-${count.index}" }
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.this.id

  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.this.id
  }

  tags = { Name = "${local.name}-public" }
}

# no way out: what is private reaches AWS by endpoints
resource "aws_route_table" "private" {
  vpc_id = aws_vpc.this.id

  tags = { Name = "${local.name}-private" }
}

resource "aws_route_table_association" "public" {
  count = 2

  subnet_id      = aws_subnet.public[count.index].id
  route_table_id = aws_route_table.public.id
}

resource "aws_route_table_association" "private" {
  count = 2

  subnet_id      = aws_subnet.private[count.index].id
  route_table_id = aws_route_table.private.id
}

resource "aws_vpc_endpoint" "s3" {
  vpc_id            = aws_vpc.this.id
  service_name      = "com.amazonaws.${var.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = [aws_route_table.public.id, aws_route_table.private.id]

  tags = { Name = "${local.name}-s3" }
}

# what a private task needs to start: its image, its secrets, a place for its log
resource "aws_vpc_endpoint" "interface" {
  for_each = local.profile.private_service ? toset(["ecr.api", "ecr.dkr", "logs", "secretsmanager"]) : toset([])

  vpc_id              = aws_vpc.this.id
  service_name        = "com.amazonaws.${var.region}.${each.key}"
  vpc_endpoint_type   = "Interface"
  subnet_ids          = aws_subnet.private[*].id
  security_group_ids  = [aws_security_group.this["endpoints"].id]
  private_dns_enabled = true

  tags = { Name = "${local.name}-${each.key}" }
}

resource "aws_flow_log" "rejected" {
  vpc_id               = aws_vpc.this.id
  traffic_type         = "REJECT"
  log_destination_type = "s3"
  log_destination      = aws_s3_bucket.this["logs"].arn

  tags       = { Name = "${local.name}-rejected" }
  depends_on = [aws_s3_bucket_policy.this]
}

locals {
  # EC2 takes no apostrophe in a description
  security_groups = {
    balancer  = "Callers, by HTTPS; HTTP only to be sent there"
    service   = "Tasks behind the balancer: the service and the pages of MLflow"
    jobs      = "Jobs: nothing comes in"
    database  = "PostgreSQL, from tasks only"
    files     = "EFS, from jobs only"
    endpoints = "Services of AWS, from within the network"
  }
}

resource "aws_security_group" "this" {
  #checkov:skip=CKV2_AWS_5:the jobs' group is attached by the scheduler's network configuration, which checkov does not follow
  for_each = local.security_groups

  name        = "${local.name}-${each.key}"
  description = each.value
  vpc_id      = aws_vpc.this.id
}

locals {
  # who may reach whom, at which port
  reaches = {
    service-from-balancer = { to = "service", from = "balancer", port = local.ports.service }
    mlflow-from-balancer  = { to = "service", from = "balancer", port = local.ports.mlflow }
    database-from-service = { to = "database", from = "service", port = local.ports.postgres }
    database-from-jobs    = { to = "database", from = "jobs", port = local.ports.postgres }
    files-from-jobs       = { to = "files", from = "jobs", port = local.ports.nfs }
    endpoints-from-tasks  = { to = "endpoints", from = "service", port = 443 }
    endpoints-from-jobs   = { to = "endpoints", from = "jobs", port = 443 }
  }
}

resource "aws_vpc_security_group_ingress_rule" "inside" {
  for_each = local.reaches

  description                  = each.key
  security_group_id            = aws_security_group.this[each.value.to].id
  referenced_security_group_id = aws_security_group.this[each.value.from].id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
}

resource "aws_vpc_security_group_egress_rule" "inside" {
  for_each = local.reaches

  description                  = each.key
  security_group_id            = aws_security_group.this[each.value.from].id
  referenced_security_group_id = aws_security_group.this[each.value.to].id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
}

resource "aws_vpc_security_group_ingress_rule" "callers" {
  for_each = { for pair in setproduct(var.caller_cidrs, [80, 443]) : "${pair[0]}-${pair[1]}" => pair }

  description       = "callers"
  security_group_id = aws_security_group.this["balancer"].id
  cidr_ipv4         = each.value[0]
  ip_protocol       = "tcp"
  from_port         = each.value[1]
  to_port           = each.value[1]
}

# AWS's addresses, the publisher's site and the alarms' channels, all by HTTPS
resource "aws_vpc_security_group_egress_rule" "https" {
  for_each = toset(["service", "jobs"])

  description       = "HTTPS out"
  security_group_id = aws_security_group.this[each.key].id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}
