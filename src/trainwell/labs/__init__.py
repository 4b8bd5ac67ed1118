"""The instructor's kit: `build` makes the labs' notebooks, `grade` grades what students send.

It needs the extra `instructor`. Nothing else in the package imports it.
"""
