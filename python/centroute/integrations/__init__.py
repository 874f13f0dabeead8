"""centroute inside other tools, one module each. Nothing else of centroute needs these tools."""
