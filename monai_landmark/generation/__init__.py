"""New films from films: diffusion that is told the embedding of a film, and what its films are worth."""
