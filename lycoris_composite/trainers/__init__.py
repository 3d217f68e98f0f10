"""What trains. Only this folder imports torch and upstream."""
