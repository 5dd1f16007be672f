# Builds, runs and tests Hookward. Rust, a C compiler and make have to be there; the rest is installed (.ci/setup).

# Beside what Cargo builds: the tests look for it there.
VENDORS := $(or $(CARGO_TARGET_DIR),target)/vendors

.PHONY: run test bench setup-build setup-test

# Serves the quickstart: http://127.0.0.1:8080, with a sample backend.
run: setup-build
	cargo run --release --locked -- run conf/quickstart.yaml

# Everything: units, vectors, the gateway in process and as a process, the example, the documentation.
test: setup-test $(VENDORS)/ready
	cargo test --locked

# The release build beside other proxies; results with the machine they were taken on.
bench: setup-build
	python3 benches/gateway/bench.py

setup-build:
	@.ci/setup cmake

setup-test:
	@.ci/setup cmake curl promtool python3 venv node npm

# The vendors' own signing code, in the versions that tests/vendors/ names.
$(VENDORS)/ready: tests/vendors/requirements.txt tests/vendors/package.json | setup-test
	rm -rf $(VENDORS)
	python3 -m venv $(VENDORS)/python
	$(VENDORS)/python/bin/pip install --quiet --disable-pip-version-check -r tests/vendors/requirements.txt
	cp tests/vendors/package.json $(VENDORS)
	cd $(VENDORS) && npm install --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@
