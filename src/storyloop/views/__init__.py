"""Views: state -> rows that any face can show. They decide nothing."""
