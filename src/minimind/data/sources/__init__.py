"""One reader a source: an archive in, `Document`s out. The catalogue names them."""
