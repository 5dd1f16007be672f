# Builds, runs and tests Hookward. Rust, a C compiler and make have to be there; the rest is installed (.ci/setup).

# Beside what Cargo builds: the tests look for it there.
SDKS := $(or $(CARGO_TARGET_DIR),target)/sdk

.PHONY: run test bench setup-build setup-test

# Serves the quickstart: http://127.0.0.1:8080, with a sample backend.
run: setup-build
	cargo run --release --locked -- run conf/quickstart.yaml

# Everything: units, vectors, the gateway in process and as a process, the example, the documentation.
test: setup-test $(SDKS)/ready
	cargo test --locked

# The release build beside other proxies; results with the machine they were taken on.
bench: setup-build
	python3 benches/gateway/bench.py

setup-build:
	@.ci/setup cmake

setup-test:
	@.ci/setup cmake curl promtool python3 venv node npm strace valgrind nginx haproxy apache2 lighttpd caddy

# The signing code of providers, in the versions that tests/sdk/ names.
$(SDKS)/ready: tests/sdk/requirements.txt tests/sdk/package.json | setup-test
	rm -rf $(SDKS)
	python3 -m venv $(SDKS)/python
	$(SDKS)/python/bin/pip install --quiet --disable-pip-version-check -r tests/sdk/requirements.txt
	cp tests/sdk/package.json $(SDKS)
	cd $(SDKS) && npm install --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@
