"""What the pages under docs/ are made from: tables out of files, and the picture of a card."""
