# Installs what `cargo build --release` made. It never builds, so that it can run as root.
#   make install [DESTDIR=/staging] [PREFIX=/usr/local]

DESTDIR ?=
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
UNITDIR ?= $(PREFIX)/lib/systemd/system
# Not below PREFIX: systemd 252 looks for groups here only.
SYSUSERSDIR ?= /usr/lib/sysusers.d
SYSCONFDIR ?= /etc/sendshot
EXAMPLEDIR ?= /usr/share/doc/sendshot/examples
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
FISHDIR ?= $(PREFIX)/share/fish/vendor_completions.d

MANDIR ?= $(PREFIX)/share/man

INSTALL ?= install
RELEASE ?= $(or $(CARGO_TARGET_DIR),target)/release
DEPLOY := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))

INSTALL_BINARIES := sendshot-sender sendshot-receiver sendshot-restore sendshotctl
INSTALL_UNITS := sendshot-sender.service sendshot-receiver.service sendshot-push.service sendshot-push.timer \
	sendshot-summary.service sendshot-summary.timer
INSTALL_CONFIG := sender.toml receiver.toml
INSTALL_EXAMPLES := $(INSTALL_CONFIG) monitoring/alerts.yml monitoring/grafana.json

.PHONY: install install-binaries install-units install-config install-completions install-man

install: install-binaries install-units install-config install-completions install-man ## Install binaries, units, examples, completions, manual pages
	@echo "Installed. Then, as root:"
	@echo "  systemd-sysusers && systemctl daemon-reload"
	@echo "  edit $(SYSCONFDIR)/sender.toml or $(SYSCONFDIR)/receiver.toml"
	@echo "  systemctl enable --now sendshot-sender (or sendshot-receiver)"

install-binaries: $(INSTALL_BINARIES:%=$(RELEASE)/%)
	$(INSTALL) -d $(DESTDIR)$(BINDIR)
	$(INSTALL) -m 0755 $^ $(DESTDIR)$(BINDIR)/

$(INSTALL_BINARIES:%=$(RELEASE)/%) $(RELEASE)/sendshot-man:
	@echo "$@ is missing: run \`cargo build --release --locked\` first, not as root" >&2; exit 1

install-units:
	$(INSTALL) -d $(DESTDIR)$(UNITDIR)
	for unit in $(INSTALL_UNITS); do \
		sed 's|/usr/local/bin/|$(BINDIR)/|' $(DEPLOY)/$$unit > $(DESTDIR)$(UNITDIR)/$$unit \
		&& chmod 0644 $(DESTDIR)$(UNITDIR)/$$unit || exit 1; \
	done
	$(INSTALL) -D -m 0644 $(DEPLOY)/sysusers.d/sendshot.conf $(DESTDIR)$(SYSUSERSDIR)/sendshot.conf

# A configuration that exists is the administrator's.
install-config:
	$(INSTALL) -d $(DESTDIR)$(EXAMPLEDIR) $(DESTDIR)$(SYSCONFDIR)
	$(INSTALL) -d -m 0700 $(DESTDIR)$(SYSCONFDIR)/receivers.d
	for example in $(INSTALL_EXAMPLES); do \
		$(INSTALL) -m 0644 $(DEPLOY)/$$example $(DESTDIR)$(EXAMPLEDIR)/ || exit 1; \
	done
	for example in $(INSTALL_CONFIG); do \
		test -e $(DESTDIR)$(SYSCONFDIR)/$$example \
		|| $(INSTALL) -m 0644 $(DEPLOY)/$$example $(DESTDIR)$(SYSCONFDIR)/ || exit 1; \
	done

install-completions: $(RELEASE)/sendshotctl
	$(INSTALL) -d $(DESTDIR)$(BASHDIR) $(DESTDIR)$(ZSHDIR) $(DESTDIR)$(FISHDIR)
	$(RELEASE)/sendshotctl completions bash > $(DESTDIR)$(BASHDIR)/sendshotctl
	$(RELEASE)/sendshotctl completions zsh > $(DESTDIR)$(ZSHDIR)/_sendshotctl
	$(RELEASE)/sendshotctl completions fish > $(DESTDIR)$(FISHDIR)/sendshotctl.fish
	chmod 0644 $(DESTDIR)$(BASHDIR)/sendshotctl $(DESTDIR)$(ZSHDIR)/_sendshotctl $(DESTDIR)$(FISHDIR)/sendshotctl.fish

install-man: $(RELEASE)/sendshot-man
	$(INSTALL) -d $(DESTDIR)$(MANDIR)
	$(RELEASE)/sendshot-man --source $(DEPLOY) $(DESTDIR)$(MANDIR)
