// The core of HashiCorp Vault, with its transit engine and its AppRole login, as a server that forgets everything when it
// ends. Unsealed from the start; the root token is in the file root-token of its folder. Only for tests.
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/logical/transit"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

func main() {
	address := flag.String("listen", "127.0.0.1:8200", "where it listens")
	certificate := flag.String("cert", "", "PEM file of its certificate")
	key := flag.String("key", "", "PEM file of the key of its certificate")
	flag.Parse()
	core := open()
	unseal(core)
	listener, err := net.Listen("tcp", *address)
	must(err)
	server := &http.Server{
		Handler: vaulthttp.Handler.Handler(&vault.HandlerProperties{
			Core:           core,
			ListenerConfig: &configutil.Listener{Type: "tcp", Address: *address, MaxRequestDuration: time.Minute},
		}),
		ReadHeaderTimeout: 10 * time.Second,
	}
	if *certificate == "" {
		must(server.Serve(listener))
	}
	must(server.ServeTLS(listener, *certificate, *key))
}

func open() *vault.Core {
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Warn})
	physical, err := inmem.NewInmem(nil, logger)
	must(err)
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical:           physical,
		DisableMlock:       true,
		DisableSSCTokens:   true,
		LogicalBackends:    factories[consts.PluginTypeSecrets],
		CredentialBackends: factories[consts.PluginTypeCredential],
		BuiltinRegistry:    builtins{},
		Logger:             logger,
	})
	must(err)
	return core
}

// What an operator does once: initialise, unseal, and give a token with the policy root to the tests.
func unseal(core *vault.Core) {
	ctx := context.Background()
	one := &vault.SealConfig{SecretShares: 1, SecretThreshold: 1}
	made, err := core.Initialize(ctx, &vault.InitParams{BarrierConfig: one, RecoveryConfig: nil})
	must(err)
	unsealed, err := core.Unseal(made.SecretShares[0])
	must(err)
	if !unsealed {
		log.Fatal("still sealed")
	}
	must(os.WriteFile("root-token", []byte(made.RootToken), 0o600))
}

// What Vault asks of the plugins that are built in: the two that are.
type builtins struct{}

var factories = map[consts.PluginType]map[string]logical.Factory{
	consts.PluginTypeSecrets:    {"transit": transit.Factory},
	consts.PluginTypeCredential: {"approle": approle.Factory},
}

func (builtins) Contains(name string, kind consts.PluginType) bool {
	_, found := factories[kind][name]
	return found
}

func (builtins) Get(name string, kind consts.PluginType) (func() (interface{}, error), bool) {
	factory, found := factories[kind][name]
	return func() (interface{}, error) { return factory, nil }, found
}

func (builtins) Keys(kind consts.PluginType) []string {
	names := []string{}
	for name := range factories[kind] {
		names = append(names, name)
	}
	return names
}

func (builtins) DeprecationStatus(string, consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, true
}

func (builtins) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
