"""wakd_kit: weight-averaged knowledge distillation under domain shift."""
