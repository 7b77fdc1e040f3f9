"""One function a case; `catalogue` lists them."""
