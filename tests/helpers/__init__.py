"""What tests share: starting scripts as users do, with limits, and proof that nothing stays behind."""
