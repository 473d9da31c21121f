"""What a trusted application is: manifest, identity, package, signature."""
