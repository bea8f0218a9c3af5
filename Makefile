.DEFAULT_GOAL := help
.PHONY: help build demo test test-deps test-long test-full test-sanitize tidy bench soak clean
# A build folder keeps the generator it was made with.
GENERATOR := $(if $(wildcard native/build/CMakeCache.txt),,$(shell command -v ninja >/dev/null && echo "-G Ninja"))

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

node_modules/.package-lock.json: package-lock.json
	npm ci
	@touch $@

build: node_modules/.package-lock.json ## native code and TypeScript
	cmake -S native -B native/build $(GENERATOR) -DCMAKE_BUILD_TYPE=Release
	cmake --build native/build -j 2
	npx tsc -b

test-deps: node_modules/.package-lock.json ## what the tests need: npm packages, nats-server, promtool
	scripts/test-deps.sh

demo: build ## two workers answer questions about a picture
	@node cli/dist/demo.js

test: test-deps build ## native tests, then the node tests that are not long
	node scripts/run-tests.mjs short

test-long: build ## matrices, load, and the native tests under sanitizers
	node scripts/run-tests.mjs long sanitize

test-full: build ## everything, uncut
	TESSERA_FULL=1 node scripts/run-tests.mjs short long sanitize

test-sanitize: ## the native tests with AddressSanitizer and UndefinedBehaviorSanitizer
	node scripts/run-tests.mjs sanitize

tidy: node_modules/.package-lock.json ## sizes, imports, formatting, lint, generated code, protos, licences
	node scripts/tidy/tidy.mjs

bench: build ## figures against their goals; BENCH="--rounds 1 exchange" for a part
	node test/dist/bench/main.js $(BENCH)

SOAK_SECONDS ?= 600
soak: build ## mixed load for SOAK_SECONDS=600; memory and handles of every process must not rise
	node test/dist/soak/main.js $(SOAK_SECONDS)

clean: ## removes what was built
	rm -rf native/build build */dist
