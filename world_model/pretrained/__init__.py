"""Pretrained Hugging Face encoders of texts and images, given by `model.pretrained.KEY`."""
