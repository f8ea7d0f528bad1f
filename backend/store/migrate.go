package store

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"

	"github.com/pressly/goose/v3"
)

//go:embed migrations
var migrationFiles embed.FS

// migrationTable is where goose notes which migrations have run.
const migrationTable = "schema_migrations"

// migrate brings the tables up to date. A database that a newer Postern has
// changed is refused: what its tables mean now is not known here.
func (d *database) migrate(ctx context.Context) error {
	provider, err := d.migrations()
	if err != nil {
		return err
	}
	have, know, err := provider.GetVersions(ctx)
	if err != nil {
		return d.explain("migrate", err)
	}
	if have > know {
		advice := "use that version, or restore a backup made by this one"
		if _, err := os.Stat(filepath.Join(filepath.Dir(d.path), beforeUpdate)); err == nil {
			advice = "use that version, or go back to the copy made before the update: postern restore " + filepath.Join(filepath.Dir(d.path), beforeUpdate)
		}
		return fmt.Errorf("open %s: written by a newer Postern (tables of version %d, this program knows %d): %s", d.path, have, know, advice)
	}
	if have == know {
		return nil
	}
	if _, err := provider.Up(ctx); err != nil {
		return d.explain("migrate", err)
	}
	d.migrated = true
	return nil
}

// freeMigrationMemory gives back what goose has used to read the migrations: some 4 MB for each, which a server that has
// little to do would carry along until much later. Its buffers are in a sync.Pool, which two collections empty.
var freeMigrationMemory = sync.OnceFunc(func() {
	runtime.GC()
	debug.FreeOSMemory()
})

// migrations returns goose's view of the database.
func (d *database) migrations() (*goose.Provider, error) {
	files, err := fs.Sub(migrationFiles, d.kind.migrations)
	if err != nil {
		return nil, fmt.Errorf("migrate %s: %w", d.path, err)
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, d.w, files,
		goose.WithTableName(migrationTable), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return nil, fmt.Errorf("migrate %s: %w", d.path, err)
	}
	return provider, nil
}
