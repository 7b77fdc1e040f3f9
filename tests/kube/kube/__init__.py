"""The chart in a real Kubernetes: see scripts/test-kube."""
