"""`python3 -m unittest` in this folder: what the tables leave out, and what they must not hide."""

import unittest

import report

MACHINE = {"kind": "machine", "date": "2026-01-01", "commit": "", "mode": "full", "cores": 2, "cpu": "x", "kernel": "6",
           "rustc": "rustc", "versions": {}}


def cell(system, cycle, cpu_us, **other):
    return {"kind": "paired", "system": system, "label": system, "cycle": cycle, "size": 1, "forged": False,
            "cpu_us": cpu_us, "per_second": 1000, "p50_us": 500, "p99_us": 900, "load_core": 0.5, "clean": 1,
            "foreign": 0.0, "unexpected": 0, **other}


class Tables(unittest.TestCase):
    def test_ratios_are_taken_inside_a_cycle(self):
        # If this fails, a machine that slows down in the middle of a run makes a winner.
        cells = [cell(system, cycle, cpu * mood) for cycle, mood in enumerate([1, 2, 3])
                 for system, cpu in (("hookward", 10), ("nginx-lua", 20))]
        self.assertIn("| valid 1 KiB | 0.50 [0.50–0.50] |", report.render([MACHINE, *cells]))

    def test_disturbed_cells_are_left_out(self):
        # If this fails, somebody's compiler in the background is printed as our cost.
        cells = [cell("hookward", cycle, 10) for cycle in range(3)]
        cells += [cell("hookward", 3, 99, foreign=0.4), cell("hookward", 4, 99, clean=0)]
        cells += [cell("hookward", 5, 1, unexpected=9)]
        self.assertIn("| valid 1 KiB | 10.0 [10.0–10.0] |", report.render([MACHINE, *cells]))

    def test_too_few_quiet_cells_are_marked(self):
        # If this fails, noise is published as if it were a measurement.
        cells = [cell("hookward", 0, 10), cell("hookward", 1, 30, foreign=0.4)]
        self.assertIn("| valid 1 KiB | 20.0 [10.0–30.0] † |", report.render([MACHINE, *cells]))

    def test_a_full_load_core_is_named(self):
        # If this fails, the load generator's limit is published as a proxy's throughput.
        cells = [cell("hookward", cycle, 10, load_core=0.99) for cycle in range(3)]
        self.assertIn("1,000, 0.50 / 0.90 ‡", report.render([MACHINE, *cells]))

    def test_faults_are_printed_with_the_tables(self):
        # If this fails, a run whose webhooks were refused looks like any other.
        text = report.render([MACHINE, {"kind": "fault", "text": "hookward: unexpected answers"}])
        self.assertIn("Not fit for publication", text)
        self.assertIn("- hookward: unexpected answers", text)


if __name__ == "__main__":
    unittest.main()
