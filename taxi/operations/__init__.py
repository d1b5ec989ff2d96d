"""For the operator: doctor, leftovers of crashes, the maturity check."""
