// Command genvectors writes spec/vectors anew: images, texts and index.json.
// README.md there is written by hand, and written-by-*.shmts by the writers' own test.
package main

import (
	"flag"
	"log"
	"os"
	"path/filepath"

	"github.com/shmts/shmts/spec/internal/vectors"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("genvectors: ")
	dir := flag.String("o", "vectors", "the directory to write to")
	flag.Parse()
	files, err := vectors.Files(*dir)
	if err != nil {
		log.Fatal(err)
	}
	for _, pattern := range []string{"*.shmts", "*.txt", "index.json", "archive/*"} { // those that are no vectors any more
		old, err := filepath.Glob(filepath.Join(*dir, pattern))
		if err != nil {
			log.Fatal(err)
		}
		for _, f := range old {
			name, err := filepath.Rel(*dir, f)
			if err != nil {
				log.Fatal(err)
			}
			if files[name] != nil {
				continue
			}
			if err := os.Remove(f); err != nil {
				log.Fatal(err)
			}
		}
	}
	if err := os.MkdirAll(filepath.Join(*dir, "archive"), 0o755); err != nil {
		log.Fatal(err)
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(*dir, name), b, 0o644); err != nil {
			log.Fatal(err)
		}
	}
}
