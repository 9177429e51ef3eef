"""Each round, who drafts: the controller and what it decides by."""
