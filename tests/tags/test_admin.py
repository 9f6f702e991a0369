"""Tags in the admin: links and a filter in the list, on the page of a run, and runs on the page of what they are about."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.test import Client, override_settings
from django.urls import path

from django_steps import workflow
from django_steps.admin import RunsOfThis, WorkflowRunAdmin
from django_steps.admin.about import SHOWN
from django_steps.models import WorkflowRun, WorkflowTag
from tests.app.models import Person

pytestmark = pytest.mark.django_db(transaction=True)

ops = admin.AdminSite(name="tags")
bare = admin.AdminSite(name="tags_bare")
LIST = "/tags/django_steps/workflowrun/"


@admin.register(Person, site=ops)
class PersonAdmin(RunsOfThis, admin.ModelAdmin):
    """Nothing is said of where the runs are."""


@admin.register(User, site=ops)
class UserAdmin(RunsOfThis, admin.ModelAdmin):
    fieldsets = [("First", {"fields": ["workflow_runs"]}), ("Then", {"fields": [("username", "email")]})]


@admin.register(Person, site=bare)
class BareAdmin(RunsOfThis, admin.ModelAdmin):
    fields = ["name", "workflow_runs"]


ops.register(WorkflowRun, WorkflowRunAdmin)
urlpatterns = [path("tags/", ops.urls), path("bare/", bare.urls)]


@pytest.fixture(autouse=True)
def its_urls():
    with override_settings(ROOT_URLCONF=__name__):
        yield


@pytest.fixture
def root() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


def user_with(*codenames: str) -> Client:
    user = User.objects.create_user("ann", is_staff=True)
    user.user_permissions.add(*Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def greet():
    @workflow(name="tags_greet")
    def greet(input, step):
        return input

    return greet


@pytest.fixture
def person():
    return Person.objects.create(name="Ann")


def text(client, address, **parameters) -> str:
    response = client.get(address, parameters)
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


def shown(client, **parameters) -> list[WorkflowRun]:
    return list(client.get(LIST, parameters).context["cl"].result_list)


# -- The list -----------------------------------------------------------------------------------------


def test_list_shows_tags_as_links_to_the_runs_that_have_them(root, greet, person):
    greet.start(tags={"tenant": "a&b=<c>"}, about=person)
    page = text(root, LIST)
    assert f'<a class="steps-tag" href="{LIST}?tag=tenant%3Da%26b%3D%3Cc%3E">tenant=a&amp;b=&lt;c&gt;</a>' in page
    assert f'<a class="steps-tag" href="{LIST}?tag=about%3Dapp.person%3A{person.pk}">person {person.pk}</a>' in page


def test_list_is_filtered_by_a_tag(root, greet, person):
    one = greet.start(tags={"tenant": "acme"})
    two = greet.start(tags={"tenant": "a=b"}, about=person)
    greet.start()
    assert shown(root, tag="tenant=acme") == [one]
    assert shown(root, tag="tenant=a=b") == shown(root, tag=f"about=app.person:{person.pk}") == [two]
    assert shown(root, tag="tenant=acme", workflow="tags_greet", status__exact="pending") == [one]
    assert shown(root, tag="tenant=acme", status__exact="failed") == []
    assert len(shown(root, tag="")) == 3


@pytest.mark.parametrize("nonsense", ["tenant", "=", "=x", "x=", "\0=\0", "n" * 101 + "=x", "x=" + "v" * 256])
def test_what_is_no_tag_finds_nothing_and_is_explained(root, greet, nonsense):
    greet.start()
    response = root.get(LIST, {"tag": nonsense}, follow=True)
    assert response.status_code == 200
    if "\0" not in nonsense:
        assert "A tag is looked for as NAME=VALUE" in response.content.decode()


def test_filter_keeps_what_else_is_chosen(root, greet):
    greet.start(tags={"tenant": "acme"})
    page = text(root, LIST, tag="tenant=acme", workflow="tags_greet", q="x")
    assert '<input type="hidden" name="workflow" value="tags_greet">' in page
    assert '<input type="hidden" name="q" value="x">' in page
    assert '<input type="text" name="tag" value="tenant=acme"' in page
    assert 'type="hidden" name="tag"' not in page.partition('class="steps-tag-filter"')[2].partition("</form>")[0]


def test_list_asks_the_same_for_many_tagged_runs(root, greet, person, django_assert_max_num_queries):
    def queries() -> int:
        with django_assert_max_num_queries(40) as asked:
            text(root, LIST)
        return len(asked.captured_queries)

    greet.start(tags={"tenant": "acme"}, about=person)
    queries()
    few = queries()
    greet.start_many(range(30), tags={"tenant": "acme", "plan": "pro"}, about=person)
    assert queries() == few


# -- The page of a run --------------------------------------------------------------------------------


def test_page_of_a_run_links_to_what_it_is_about(root, greet, person):
    run = greet.start(tags={"tenant": "acme"}, about=person)
    page = text(root, f"{LIST}{run.pk}/change/")
    assert f'<a href="/tags/app/person/{person.pk}/change/">person {person.pk}</a>' in page
    assert f'<a class="steps-tag" href="{LIST}?tag=tenant%3Dacme">tenant=acme</a>' in page


def test_what_is_deleted_or_may_not_be_seen_is_named_without_a_link(greet, person, root):
    run = greet.start(about=person)
    viewer = user_with("view_workflowrun")
    page = text(viewer, f"{LIST}{run.pk}/change/")
    assert f"<dd>person {person.pk}</dd>" in page
    person_key = person.pk
    person.delete()
    assert f"<dd>person {person_key} (deleted)</dd>" in text(root, f"{LIST}{run.pk}/change/")
    WorkflowRun.objects.filter(pk=run.pk).update(tags_text='{"about":"gone.model:7"}')
    assert "<dd>gone.model 7 (deleted)</dd>" in text(root, f"{LIST}{run.pk}/change/")
    WorkflowRun.objects.filter(pk=run.pk).update(tags_text='{"about":7,"x"')
    assert "<dt>About</dt>" not in text(root, f"{LIST}{run.pk}/change/")


# -- The page of what runs are about ------------------------------------------------------------------


def test_page_of_an_object_shows_the_runs_about_it(root, greet, person):
    run = greet.start(about=person)
    other = greet.start(about=Person.objects.create(name="Bob"))
    page = text(root, f"/tags/app/person/{person.pk}/change/")
    assert f'<a href="{LIST}{run.pk}/change/">tags_greet …{str(run.pk)[-12:]}</a>' in page
    assert '<span class="steps-status steps-status-pending">pending</span>' in page
    assert f'<a href="{LIST}?tag=about%3Dapp.person%3A{person.pk}">All runs about this</a>' in page
    assert str(other.pk) not in page
    assert "django_steps/admin.css" in page


def test_newest_runs_are_shown_without_those_that_they_have_invoked(root, greet, person, work):
    @workflow(name="tags_inviting")
    def inviting(step):
        step.invoke("greet", greet).run(1)

    run = inviting.start(about=person)
    work()
    page = text(root, f"/tags/app/person/{person.pk}/change/")
    assert str(run.pk) in page
    assert "tags_greet" not in page
    runs = greet.start_many(range(SHOWN), about=person)
    page = text(root, f"/tags/app/person/{person.pk}/change/")
    assert all(f"{LIST}{new.pk}/change/" in page for new in runs)
    assert str(run.pk) not in page


def test_object_without_runs_says_so(root, person):
    assert "No run is about this." in text(root, f"/tags/app/person/{person.pk}/change/")


def test_runs_stand_where_the_fields_say(root, greet):
    user = User.objects.get(username="root")
    greet.start(about=user)
    page = text(root, f"/tags/auth/user/{user.pk}/change/")
    assert page.index("steps-about") < page.index("id_username")
    assert page.count("steps-about") == 1


def test_object_is_saved_as_ever(root, greet, person):
    greet.start(about=person)
    response = root.post(f"/tags/app/person/{person.pk}/change/", {"name": "Anna", "greeted": 1})
    assert response.status_code == 302
    person.refresh_from_db()
    assert person.name == "Anna"
    assert root.post("/tags/app/person/add/", {"name": "Bob", "greeted": 0}).status_code == 302
    assert "workflow runs" not in text(root, "/tags/app/person/add/").lower().partition("<main")[2]
    assert Person.objects.count() == 2


def test_only_who_may_view_runs_sees_them(greet, person):
    greet.start(about=person)
    viewer = user_with("view_person")
    page = text(viewer, f"/tags/app/person/{person.pk}/change/")
    assert "steps-about" not in page
    assert "field-workflow_runs" not in page


def test_site_without_runs_shows_none(root, greet, person):
    greet.start(about=person)
    assert "field-workflow_runs" not in text(root, f"/bare/app/person/{person.pk}/change/")


# -- Deleting -----------------------------------------------------------------------------------------


def test_deleting_a_run_asks_for_no_permission_of_its_tags(greet, person, work):
    run = greet.start(tags={"tenant": "acme"}, about=person)
    work()
    deleter = user_with("view_workflowrun", "delete_workflowrun")
    address = f"{LIST}{run.pk}/delete/"
    assert "workflow tag" not in text(deleter, address)
    assert deleter.post(address, {"post": "yes"}).status_code == 302
    assert (WorkflowRun.objects.count(), WorkflowTag.objects.count()) == (0, 0)
