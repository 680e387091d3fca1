package io.normcl;

import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.classes;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.fields;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noClasses;
import static com.tngtech.archunit.library.dependencies.SlicesRuleDefinition.slices;

import com.tngtech.archunit.core.importer.ImportOption;
import com.tngtech.archunit.junit.AnalyzeClasses;
import com.tngtech.archunit.junit.ArchTest;
import com.tngtech.archunit.lang.ArchRule;
import com.tngtech.archunit.library.Architectures;

/** The table of rooms: a room imports only rooms below it. */
@AnalyzeClasses(packages = "io.normcl", importOptions = ImportOption.DoNotIncludeTests.class)
class ArchitectureTest {
    @ArchTest
    static final ArchRule ROOMS = Architectures.layeredArchitecture()
            .consideringOnlyDependenciesInLayers()
            .withOptionalLayers(true)
            .layer("cli")
            .definedBy("io.normcl.cli..")
            .layer("lab")
            .definedBy("io.normcl.lab..")
            .layer("train")
            .definedBy("io.normcl.train..")
            .layer("verify")
            .definedBy("io.normcl.verify..")
            .layer("bench")
            .definedBy("io.normcl.bench..")
            .layer("exchange")
            .definedBy("io.normcl.exchange..")
            .layer("api")
            .definedBy("io.normcl")
            .layer("sync")
            .definedBy("io.normcl.sync..")
            .layer("plan")
            .definedBy("io.normcl.plan..")
            .layer("reference")
            .definedBy("io.normcl.reference..")
            .layer("tensor")
            .definedBy("io.normcl.tensor..")
            .layer("device")
            .definedBy("io.normcl.device..")
            .whereLayer("cli")
            .mayNotBeAccessedByAnyLayer()
            .whereLayer("lab")
            .mayOnlyBeAccessedByLayers("cli")
            .whereLayer("train")
            .mayOnlyBeAccessedByLayers("cli", "lab")
            .whereLayer("verify")
            .mayOnlyBeAccessedByLayers("cli", "lab", "train")
            .whereLayer("bench")
            .mayOnlyBeAccessedByLayers("cli", "lab", "train")
            .whereLayer("exchange")
            .mayOnlyBeAccessedByLayers("cli", "lab", "train", "verify", "bench")
            .whereLayer("api")
            .mayOnlyBeAccessedByLayers("cli", "lab", "train", "verify", "bench", "exchange")
            .whereLayer("sync")
            .mayOnlyBeAccessedByLayers("cli", "lab", "train", "verify", "bench", "exchange", "api")
            .whereLayer("plan")
            .mayOnlyBeAccessedByLayers("cli", "lab", "train", "verify", "bench", "exchange", "api", "sync")
            .whereLayer("reference")
            .mayOnlyBeAccessedByLayers("cli", "lab", "train", "verify", "bench", "exchange", "api", "sync", "plan")
            .whereLayer("tensor")
            .mayOnlyBeAccessedByLayers(
                    "cli", "lab", "train", "verify", "bench", "exchange", "api", "sync", "plan", "reference")
            .ensureAllClassesAreContainedInArchitecture();

    @ArchTest
    static final ArchRule NO_CYCLES =
            slices().matching("io.normcl.(*)..").should().beFreeOfCycles();

    @ArchTest
    static final ArchRule ONLY_DEVICE_KNOWS_OPENCL = noClasses()
            .that()
            .resideOutsideOfPackage("io.normcl.device..")
            .should()
            .dependOnClassesThat()
            .resideInAPackage("org.jocl..");

    @ArchTest
    static final ArchRule DEVICE_KNOWS_NO_OTHER_ROOM = classes()
            .that()
            .resideInAPackage("io.normcl.device..")
            .should()
            .onlyDependOnClassesThat()
            .resideInAnyPackage("io.normcl.device..", "java..", "org.jocl..", "org.slf4j..", "org.jspecify..");

    @ArchTest
    static final ArchRule PLAN_IS_PURE = noClasses()
            .that()
            .resideInAPackage("io.normcl.plan..")
            .should()
            .dependOnClassesThat()
            .resideInAnyPackage("org.jocl..", "java.io..", "java.nio..", "java.net..")
            .orShould()
            .dependOnClassesThat()
            .haveFullyQualifiedName("io.normcl.device.Device")
            .orShould()
            .dependOnClassesThat()
            .haveFullyQualifiedName("io.normcl.device.Buffer");

    @ArchTest
    static final ArchRule PLAN_HAS_NO_MUTABLE_STATE = fields().that()
            .areDeclaredInClassesThat()
            .resideInAPackage("io.normcl.plan..")
            .should()
            .beFinal();

    @ArchTest
    static final ArchRule THE_LIBRARY_NEEDS_JOCL_AND_SLF4J_ALONE = classes()
            .that()
            .resideInAnyPackage(
                    "io.normcl", "io.normcl.sync", "io.normcl.plan", "io.normcl.reference", "io.normcl.tensor")
            .should()
            .onlyDependOnClassesThat()
            .resideInAnyPackage("io.normcl..", "java..", "org.slf4j..", "org.jspecify..");

    @ArchTest
    static final ArchRule REFERENCE_IS_INDEPENDENT = noClasses()
            .that()
            .resideInAPackage("io.normcl.reference..")
            .should()
            .dependOnClassesThat()
            .resideInAnyPackage("io.normcl.device..", "io.normcl.plan..");

    @ArchTest
    static final ArchRule NO_OPENCL_WORK_IN_THE_LAB = noClasses()
            .that()
            .resideInAnyPackage("io.normcl.lab..", "io.normcl.cli..")
            .should()
            .dependOnClassesThat()
            .haveFullyQualifiedName("io.normcl.device.Kernel");

    @ArchTest
    static final ArchRule ONLY_DEVICE_AND_TENSOR_HOLD_DEVICE_HANDLES_BELOW_THE_API = noClasses()
            .that()
            .resideInAPackage("io.normcl.sync..")
            .should()
            .dependOnClassesThat()
            .resideInAPackage("io.normcl.device..");
}
