"""Do the tests notice? Small faults are put into copies of the product, one at a time.

    python -m tests.mutants                  the listed faults and a sample of generated ones
    python -m tests.mutants --only 8 14      these of the list
    python -m tests.mutants --sample 0       the list alone
    python -m tests.mutants --generated      the sample alone
    python -m tests.mutants --check          only whether every text is found where it is listed

For each fault the test files that matter for its module run, the fast ones first, until one fails:
`MATTERS` in `running.py`. The working tree is never touched. The last line says how many faults no
test noticed; the exit status is 1 where one of them is not exempted by name in `listed.py`.
"""
