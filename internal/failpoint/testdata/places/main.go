// Places passes some.
package main

import (
	"fmt"

	"github.com/shmts/shmts/internal/failpoint"
)

func main() {
	for range 2 {
		failpoint.Here("a")
		fmt.Print("a ")
	}
	for range 2 {
		fmt.Printf("b:%v ", failpoint.Fails("b"))
	}
	fmt.Println("done")
}
