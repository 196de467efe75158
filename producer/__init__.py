"""Put jobs in and take results out; import `headgate` instead of this."""
