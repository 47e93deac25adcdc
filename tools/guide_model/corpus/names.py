"""Names that exercises are about: of people, towns, countries and things."""

PEOPLE = (
    "Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Hugo", "Ida", "Jonas",
    "Karin", "Leo", "Maria", "Nils", "Olga", "Paul", "Rosa", "Simon", "Tina", "Victor",
    "Alice", "Bob", "Clara", "Daniel", "Eva", "Frank", "Gina", "Henry", "Irene", "Jack",
)  # fmt: skip
TOWNS = (
    "Rome", "Paris", "Berlin", "Madrid", "Lisbon", "Vienna", "Prague", "Oslo", "Dublin", "Athens",
    "London", "Tokyo", "Cairo", "Lima", "Delhi", "Boston", "Chicago", "Toronto", "Sydney", "Zurich",
)  # fmt: skip
COLOURS = ("red", "green", "blue", "black", "white", "yellow", "brown", "grey", "pink", "orange")
FRUITS = ("apples", "pears", "plums", "lemons", "cherries", "grapes", "figs", "melons")
ANIMALS = ("cat", "dog", "horse", "rabbit", "parrot", "hamster", "goat", "duck")
