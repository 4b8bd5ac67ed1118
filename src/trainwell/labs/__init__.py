"""Labs: one Markdown source each, from which everything else is built.

- `grade`: grades what students send, and writes grades, feedback pages and a report
- `submissions`: whose file is this, among the names that students and platforms give
- `rebuild`: a student's answers, put into the pristine grading notebook
- `sandbox`: the kernel in a box that runs them; `guard`: what watches the checks' tools in it
- `gradebook`, `report`: what grading leaves behind, for people

Grading needs the extra `instructor`. Nothing else in the package imports this folder.
"""
