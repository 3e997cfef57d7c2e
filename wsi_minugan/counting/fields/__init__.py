"""Ten high-power fields: placed for the highest total, with a bound that no placement can beat."""
