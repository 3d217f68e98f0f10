"""What people look at before and after training: preview, export, gallery. Reads; trains nothing."""
