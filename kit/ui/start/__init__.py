"""The form's first screen: three questions, and the way back of whatever fills the form."""
