"""Web data of the tabletop: images of concepts with questions and answers."""
