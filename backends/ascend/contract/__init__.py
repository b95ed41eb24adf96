"""What CANN's operators take and give: rules from their documentation, and their schemas."""
