"""Labs: one Markdown source each, from which everything else is built.

- `checks`: what the checks in a lab call; what a student's notebook imports from here
- `source`: the format of a source, read and checked
- `build`: the student, solution and grading notebooks, and the book's page
- `trial`: every check is tried: it must fail on the blank, and pass on the solution
- `competition`: tables to compete on, and who has beaten what
- `grade`: grades what students send. `submissions` says whose it is, `rebuild` puts the answers
  into the pristine notebook, `sandbox` and `guard` run it; `gradebook`, `report` are for people

Building and grading need the extra `instructor`. Nothing else in the package imports this folder.
"""
