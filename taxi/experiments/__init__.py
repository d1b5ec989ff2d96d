"""Champion against challenger: A/B tests with sequential bounds, and backtests over years."""
